"""A loaded language model as the other packages see it: prompts of every kind, forms of answers.

Prompts are made by HTTP threads (see ``ServedModel``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from app.core.errors import UnsupportedParameterError
from app.core.patience import held
from app.models.checkpoint.loader import Checkpoint
from app.models.grammars.constraints import Constraints
from app.models.served_model import context_size
from app.models.tokens.chat_prompts import has_rounds, rounds_prompt
from app.models.tokens.generating_model import GeneratingModel
from app.models.tokens.infill import File, Infilling, InfillPrompt
from app.models.tokens.model_forms import ModelForms
from app.models.tokens.rendering import RENDERER
from app.models.tokens.template_file import read_template
from app.models.weights.adapters.adapter_store import AdapterStore

Message = dict[str, Any]
# Where a conversation's prompt ends, in the words of transformers' ``apply_chat_template``.
PROMPT_ENDS = frozenset(("add_generation_prompt", "continue_final_message"))
# DeepSeek's templates tell by it that a message holds nothing but calls.
_ASKS_FOR_NONE = re.compile(r"\bcontent(?:['\"]\s*\])?\s+is\s+(?:not\s+)?none\b")


class TextModel(GeneratingModel):
    """Tokenizer, limits and defaults of one causal language model.

    ``chat_template`` is the path of a Jinja file that stands in for the model's own template; ``calls`` and
    ``reasoning`` name the forms of its answers where the template does not tell them.
    """

    task: Literal["generate"]

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        max_context_tokens: int,
        chat_template: str | None = None,
        *,
        calls: str = "auto",
        reasoning: str = "auto",
    ):
        limit = context_size(checkpoint.model.config) or max_context_tokens
        super().__init__(name, checkpoint, min(max_context_tokens, limit))
        if chat_template is not None:
            self.tokenizer.chat_template = read_template(Path(chat_template))
        self._has_rounds = has_rounds(checkpoint.model.config) and not self.tokenizer.chat_template
        self.forms = ModelForms(self.tokenizer, calls, reasoning)
        self.constraints = Constraints(self.tokenizer, self.vocab_size, self.eos_ids)
        self._infilling = Infilling.of(self.tokenizer)
        self.adapters: AdapterStore | None = None

    def forget_weights(self) -> None:
        """Also ends the processes of its grammars."""
        super().forget_weights()
        self.constraints.close()

    @property
    def has_chat_template(self) -> bool:
        """Whether a conversation can be turned into a prompt: by a template, or in ChatGLM-6B's form."""
        return self._has_rounds or bool(self.tokenizer.chat_template)

    @property
    def has_tool_template(self) -> bool:
        """Whether the chat template renders tools."""
        return "tools" in str(self.tokenizer.chat_template or "")

    @property
    def has_infill(self) -> bool:
        """Whether the tokenizer has the special tokens of an infilling format."""
        return self._infilling is not None

    def encode_infill(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File] = (), start: str = ""
    ) -> InfillPrompt:
        """The prompt for the hole behind ``parts[len(filled)]``; see ``Infilling.prompt``.

        Raises ``UnsupportedParameterError`` where the model cannot fill holes.
        """
        if self._infilling is None:
            raise UnsupportedParameterError(f"the model {self.name} does not fill holes: it has no infilling format")
        self.require_short(*parts, *filled, *(text for file in files for text in file))
        with held(self._lock):
            prompt = self._infilling.prompt(parts, filled, files, start)
        self.checked(prompt.ids)
        return prompt

    def takes_argument(self, name: str) -> bool:
        """Whether the chat template looks at a value of this name."""
        return re.search(rf"\b{re.escape(name)}\b", str(self.tokenizer.chat_template or "")) is not None

    def encode_chat(
        self, messages: list[Message], tools: list[dict[str, Any]] | None = None, **arguments: Any
    ) -> list[int]:
        """Token ids of a conversation that ends where the assistant's answer begins.

        With ``continue_final_message`` it ends within the last message, without ``add_generation_prompt`` behind it.
        ``tools`` are function descriptions as OpenAI's API has them, for templates that render them; ``arguments``
        are what else the template is given.
        Raises ``UnsupportedParameterError`` where the model has no chat template, and
        ``InvalidParameterError`` where the template refuses the messages.
        """
        if not self.has_chat_template:
            raise UnsupportedParameterError(f"the model {self.name} has no chat template", param="messages")
        if self._has_rounds:
            for name in PROMPT_ENDS & arguments.keys():
                raise UnsupportedParameterError(f"{name}: the model {self.name} has no chat template", param=name)
            return self.encode(rounds_prompt(messages))
        text = self._render(messages, tools, arguments)
        self.require_short(text)
        with held(self._lock):
            ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return self.checked(ids)

    def _render(self, messages: list[Message], tools: list[dict[str, Any]] | None, arguments: dict[str, Any]) -> str:
        """The conversation as the template writes it; what ``apply_chat_template`` does, in a process of its own.

        It drops what is None, since many templates write that word; one that asks whether content is, is told.
        """
        named = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()}
        template = self.tokenizer.get_chat_template(None, tools)
        kept = {"content"} if _ASKS_FOR_NONE.search(template) else set()
        given = [
            {key: value for key, value in message.items() if value is not None or key in kept} for message in messages
        ]
        return RENDERER.render(template, given, tools=tools, **{"add_generation_prompt": True, **named, **arguments})
