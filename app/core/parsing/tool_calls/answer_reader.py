"""Parts an answer as it comes: reasoning, content, calls. One for each completion; pure state, any thread."""

from __future__ import annotations

import secrets
import string
import uuid
from dataclasses import dataclass, field

from app.core.parsing.tool_calls.answer_parts import CallStart, Part
from app.core.parsing.tool_calls.forms.call_form import CallForm, read_content
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.reasoning import HARMONY_CHANNELS, ReasoningForm, read_reasoning
from app.core.parsing.tool_calls.scanner import Scanner, Steps

_ID_SIGNS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How one request's answers are written.

    ``is_thinking``: the prompt has opened the reasoning. ``given`` is the start of the answer that the prompt holds: a
    call that begins in it is the answer's.
    """

    calls: CallForm | None = None
    reasoning: ReasoningForm | None = None
    tools: KnownTools = field(default_factory=KnownTools)
    is_thinking: bool = False
    given: str = ""

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

    def id_of(self, call: CallStart) -> str:
        """The call's own id, else a new one as the family's template takes it."""
        if call.call_id:
            return call.call_id
        if self.calls is not None and self.calls.id_length < 24:
            return "".join(secrets.choice(_ID_SIGNS) for _ in range(self.calls.id_length))
        return f"call_{uuid.uuid4().hex[:24]}"


class AnswerReader:
    """Takes a text in pieces and gives its parts, the same whatever the pieces are."""

    def __init__(self, form: AnswerForm):
        self.scanner = Scanner(form.given)
        self._steps = _read(self.scanner, form)
        self._is_done = False
        self._begun: list[Part] = []
        if form.given:
            self._advance()
            self._begun = self._begun_call(self.scanner.taken())

    def push(self, text: str) -> list[Part]:
        """The parts that are certain now."""
        if text:
            self.scanner.text += text
            self._advance()
        return self._taken()

    def finish(self) -> list[Part]:
        """The rest."""
        self.scanner.is_last = True
        self._advance()
        return self._taken()

    @property
    def is_within_call(self) -> bool:
        """Whether a call has begun, or what may be the start of one."""
        return self.scanner.is_inside or self.scanner.at < len(self.scanner.text)

    def _begun_call(self, parts: list[Part]) -> list[Part]:
        """The call that the given start of the answer ends in, if any."""
        starts = [at for at, part in enumerate(parts) if isinstance(part, CallStart)]
        return parts[starts[-1] :] if starts and self.scanner.is_inside else []

    def _taken(self) -> list[Part]:
        begun, self._begun = self._begun, []
        return begun + self.scanner.taken()

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
        before = () if calls is None else calls.ends_thought
        yield from read_reasoning(s, reasoning, is_open=form.is_thinking, before=before)
        ignored = reasoning.frames + (reasoning.ignored if s.has_thought else ())
    yield from read_content(s, calls, form.tools, ignored)


def read_whole(text: str, form: AnswerForm) -> list[Part]:
    """The parts of a whole answer."""
    reader = AnswerReader(form)
    return reader.push(text) + reader.finish()
