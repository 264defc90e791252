"""Parts an answer as it comes: reasoning, content, calls. One for each completion; pure state, any thread."""

from __future__ import annotations

import secrets
import string
import uuid
from dataclasses import dataclass, field

from app.core.parsing.tool_calls.answer_parts import Part
from app.core.parsing.tool_calls.forms.call_form import CallForm, read_content
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.reasoning import HARMONY_CHANNELS, ReasoningForm, read_reasoning
from app.core.parsing.tool_calls.scanner import Scanner, Steps

_ID_SIGNS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How one request's answers are written. ``is_thinking``: the prompt has opened the reasoning."""

    calls: CallForm | None = None
    reasoning: ReasoningForm | None = None
    tools: KnownTools = field(default_factory=KnownTools)
    is_thinking: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing is told apart: the text is the content."""
        return self.calls is None and self.reasoning is None

    @property
    def thinks_between(self) -> bool:
        """Whether reasoning may stand anywhere, not in front of all else alone."""
        return self.calls is not None and self.calls.read_answer is not None

    @property
    def may_think(self) -> bool:
        return self.reasoning is not None or self.thinks_between

    def new_id(self) -> str:
        """An id for a call, as the family's template takes it."""
        if self.calls is not None and self.calls.id_length < 24:
            return "".join(secrets.choice(_ID_SIGNS) for _ in range(self.calls.id_length))
        return f"call_{uuid.uuid4().hex[:24]}"


class AnswerReader:
    """Takes a text in pieces and gives its parts, the same whatever the pieces are."""

    def __init__(self, form: AnswerForm):
        self.scanner = Scanner()
        self._steps = _read(self.scanner, form)
        self._is_done = False

    def push(self, text: str) -> list[Part]:
        """The parts that are certain now."""
        if text:
            self.scanner.text += text
            self._advance()
        return self.scanner.taken()

    def finish(self) -> list[Part]:
        """The rest."""
        self.scanner.is_last = True
        self._advance()
        return self.scanner.taken()

    def _advance(self) -> None:
        if not self._is_done:
            self._is_done = next(self._steps, self) is self


def _read(s: Scanner, form: AnswerForm) -> Steps[None]:
    calls, reasoning = form.calls, form.reasoning
    if calls is not None and calls.read_answer is not None:
        yield from calls.read_answer(s, form.tools)
        return
    ignored: tuple[str, ...] = ()
    if reasoning is not None and reasoning is not HARMONY_CHANNELS:
        yield from read_reasoning(s, reasoning, is_open=form.is_thinking)
        ignored = reasoning.ignored if s.has_thought else ()
    yield from read_content(s, calls, form.tools, ignored)


def read_whole(text: str, form: AnswerForm) -> list[Part]:
    """The parts of a whole answer."""
    reader = AnswerReader(form)
    return reader.push(text) + reader.finish()
