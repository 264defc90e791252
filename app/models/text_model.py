"""A loaded language model as the other rooms see it: names, limits, text to ids and back.

Made on the inference thread; ``encode`` and ``encode_chat`` are called by HTTP threads, under a
lock, since slow tokenizers (and transformers' own wrapper) are not safe to share.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.models.constraints import Constraints
from app.models.loader import Checkpoint
from app.models.vocabulary import Vocabulary

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the native routes use where a request is silent (DESIGN 1.4)."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float

    @classmethod
    def of(cls, config: GenerationConfig) -> SamplingDefaults:
        """From ``generation_config.json``; greedy where it does not ask for sampling."""
        return cls(
            temperature=float(_or(config.temperature, 1.0)) if config.do_sample else 0.0,
            top_p=float(_or(config.top_p, 1.0)),
            top_k=int(_or(config.top_k, 0)),
            repetition_penalty=float(_or(config.repetition_penalty, 1.0)),
        )


class TextModel:
    """Tokenizer, limits and defaults of one causal language model."""

    def __init__(self, name: str, checkpoint: Checkpoint, max_context_tokens: int):
        self.name = name
        self.created_s = int(time.time())
        self.checkpoint = checkpoint
        self.tokenizer: PreTrainedTokenizerBase = checkpoint.tokenizer
        self.context_tokens = min(max_context_tokens, context_size(checkpoint.model.config) or max_context_tokens)
        self.vocab_size = checkpoint.vocab_size
        self.defaults = SamplingDefaults.of(checkpoint.model.generation_config)
        self.eos_ids = eos_ids(checkpoint.model.generation_config, self.tokenizer)
        self.pad_id = (
            self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.eos_ids, default=0)
        )
        self.constraints = Constraints(self.tokenizer, self.vocab_size, self.eos_ids)
        self.vocabulary = Vocabulary(self.tokenizer)
        self._lock = threading.Lock()

    @property
    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def has_tool_template(self) -> bool:
        """Whether the chat template renders tools."""
        return "tools" in str(self.tokenizer.chat_template or "")

    @property
    def dtype(self) -> str:
        """What the weights are computed in: float32, bfloat16, float16."""
        return str(self.checkpoint.dtype).removeprefix("torch.")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model's tokenizer adds by itself."""
        with self._lock:
            ids: list[int] = self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        return self._checked(ids)

    def encode_chat(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> list[int]:
        """Token ids of a conversation that ends where the assistant's answer begins.

        ``tools`` are function descriptions as OpenAI's API has them, for templates that render them.
        Raises ``UnsupportedParameterError`` where the model has no chat template, and
        ``InvalidParameterError`` where the template refuses the messages.
        """
        if not self.has_chat_template:
            raise UnsupportedParameterError(f"the model {self.name} has no chat template", param="messages")
        with self._lock:
            try:
                text = str(
                    self.tokenizer.apply_chat_template(
                        messages, tools=tools, add_generation_prompt=True, tokenize=False
                    )
                )
            except (TemplateError, ValueError) as error:
                raise InvalidParameterError(f"the chat template refuses these messages: {error}") from None
            ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return self._checked(ids)

    def decode(self, ids: list[int]) -> str:
        """Text of ``ids`` without special tokens, spaces kept as they are. Inference thread."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _checked(self, ids: list[int]) -> list[int]:
        """An id outside the embedding would poison a CUDA context: refuse it here, on the CPU."""
        if ids and max(ids) >= self.vocab_size:
            raise InvalidParameterError("the prompt has a token that the model does not know", param="prompt")
        return ids


def context_size(config: PretrainedConfig) -> int | None:
    """Positions that the model was made for, or None where the config names none."""
    text_config = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def eos_ids(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a sequence: the generation config's, or else the tokenizer's."""
    named: Any = config.eos_token_id
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        return frozenset()
    return frozenset(named) if isinstance(named, list) else frozenset({int(named)})


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
