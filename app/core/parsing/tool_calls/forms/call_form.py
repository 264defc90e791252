"""What a form of tool calls is, and how an answer in one is read. Pure; any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

ReadCall = Callable[[Scanner, str, KnownTools], Steps[None]]


@dataclass(frozen=True, slots=True)
class CallForm:
    """One notation. ``opens``: what a call may begin with; ``marks``: its other signs, which may be special tokens too.

    ``read_call`` reads one call, or several, from the sign that it is told. It starts no call that is none: then it
    raises ``MalformedError``, or returns, and the sign is content. ``read_answer``, where a form has one, reads the
    whole answer in its place. ``ends_thought`` are signs that end reasoning, too: tokens that no thought spells out.
    """

    name: str
    opens: tuple[str, ...]
    read_call: ReadCall
    marks: tuple[str, ...] = ()
    read_answer: Callable[[Scanner, KnownTools], Steps[None]] | None = None
    id_length: int = field(default=24)
    ends_thought: tuple[str, ...] = ()

    @property
    def signs(self) -> frozenset[str]:
        """What has to be seen of an answer though it be a special token."""
        return frozenset(self.opens + self.marks)


def read_content(s: Scanner, form: CallForm | None, tools: KnownTools, ignored: tuple[str, ...] = ()) -> Steps[None]:
    """The content up to the end of the answer, and the calls in it; ``ignored`` signs are no part of it."""
    opens = () if form is None else form.opens
    while sign := (yield from s.content_until(*opens, *ignored)):
        if form is None or sign not in opens:
            yield from s.skip_frame(sign)
            continue
        start, num_before = s.at, s.num_calls
        try:
            yield from form.read_call(s, sign, tools)
        except EndedError:
            s.at = len(s.text)
        except MalformedError:
            pass
        if s.num_calls == num_before:
            s.at = start
            s.let_go(start + len(sign))
