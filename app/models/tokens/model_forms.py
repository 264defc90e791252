"""How one model writes its answers: its forms of calls and reasoning, and which special tokens belong to them.

Made on the inference thread with the model; any thread asks.
"""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.parsing.tool_calls.choosing import CALL_FORMS, REASONING_FORMS, find_call_form, find_reasoning_form
from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.named_forms import harmony
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.reasoning import HARMONY_CHANNELS, ReasoningForm
from app.core.work.sampling_params import ReasoningSpan
from app.models.grammars.calls.notation_table import notation_of

# Tokens at a prompt's end that may open the reasoning: a tag and line breaks.
OPENING_TOKENS = 16


class ModelForms:
    """The forms of one tokenizer's answers. ``calls`` and ``reasoning`` name them, or say ``auto``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, calls: str = "auto", reasoning: str = "auto"):
        template = str(tokenizer.chat_template or "")
        added = {str(entry.content): token for token, entry in tokenizer.added_tokens_decoder.items()}
        # transformers' own description of the answers, where the checkpoint brings one: it holds the signs, too.
        described = getattr(tokenizer, "response_template", None) or ""
        own = json.dumps(described, ensure_ascii=False, default=str).replace("\\", "")
        self._template = template + own
        self._added = added
        self._tokenizer = tokenizer
        self.calls: CallForm = CALL_FORMS.get(calls) or find_call_form(template, own, added)
        found = None if reasoning == "none" else find_reasoning_form(template, own, added)
        self.reasoning: ReasoningForm | None = REASONING_FORMS.get(reasoning) or found
        if self.reasoning is HARMONY_CHANNELS and self.calls.name != HARMONY_CHANNELS.name:
            # Its reasoning is read with its calls, and with no others.
            self.reasoning = None

    def of_request(
        self, tools: list[dict[str, Any]] | None, prompt_ids: list[int], continued: str | None = None
    ) -> AnswerForm:
        """How the answer to this prompt is written; without tools a call is text.

        ``continued`` is the start of the answer where the prompt holds it: behind it no reasoning begins, and a call
        that it ends in goes on.
        """
        calls = self.calls if tools else None
        if self.reasoning is HARMONY_CHANNELS and calls is None:
            calls = CALL_FORMS["harmony"]
        is_thinking = self._is_thinking(prompt_ids, continued)
        may_think = is_thinking or continued is None or self.reasoning is HARMONY_CHANNELS
        is_read = continued is not None and calls is not None and calls.read_answer is None and not is_thinking
        given = continued if is_read and continued else ""
        return AnswerForm(calls, self.reasoning if may_think else None, KnownTools(tools), is_thinking, given)

    @property
    def notation(self) -> str:
        """The notation that grammars for its calls are written in."""
        return notation_of(self.calls.name, self._template)

    def shown_tokens(self, *, has_tools: bool) -> frozenset[int]:
        """Special tokens that have to be seen as text."""
        signs = self.reasoning.signs if self.reasoning is not None else frozenset[str]()
        if has_tools or self.reasoning is HARMONY_CHANNELS:
            signs |= self.calls.signs
        return frozenset(token for name, token in self._added.items() if name in signs)

    def reasoning_span(self, prompt_ids: list[int], continued: str | None = None) -> ReasoningSpan | None:
        """What a grammar leaves free in front of the answer to this prompt: its reasoning; None where there is none."""
        form = self.reasoning
        if form is HARMONY_CHANNELS:
            opens, closes = f"{harmony.CHANNEL}analysis{harmony.MESSAGE}", harmony.NEXT_MESSAGE
            return ReasoningSpan((opens,), (closes,), answer=f"{harmony.FINAL}{harmony.MESSAGE}")
        is_thinking = self._is_thinking(prompt_ids, continued)
        if form is None or not (is_thinking or continued is None):
            return None
        return ReasoningSpan(form.opens, form.closes, is_thinking)

    def closing(self, *, has_tools: bool) -> str:
        """What ends the reasoning where it has to end. Behind it harmony's answer begins, or the model chooses."""
        if self.reasoning is not HARMONY_CHANNELS:
            return self.reasoning.closes[0] if self.reasoning is not None else ""
        return harmony.NEXT_MESSAGE if has_tools else f"{harmony.NEXT_MESSAGE}{harmony.FINAL}{harmony.MESSAGE}"

    def _is_thinking(self, prompt_ids: list[int], continued: str | None) -> bool:
        """Whether the prompt ends within reasoning: its template has opened it, or the start of the answer has."""
        form = self.reasoning
        if continued is None or form is None:
            return self._opens_reasoning(prompt_ids)
        opened = max((continued.rfind(sign) for sign in form.opens), default=-1)
        return opened >= 0 and not any(sign in continued[opened:] for sign in form.closes)

    def _opens_reasoning(self, prompt_ids: list[int]) -> bool:
        """Whether the prompt ends inside of the reasoning: its template has written the opening tag."""
        if self.reasoning is None or not self.reasoning.opens:
            return False
        ids = prompt_ids[-OPENING_TOKENS:]
        end = str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return end.rstrip().endswith(self.reasoning.opens)
