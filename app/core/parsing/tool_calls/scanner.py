"""Reads a text that grows: each form of an answer is a generator that yields where it needs more text.

What is read depends on the text alone, never on where it was cut: a decision is made once no further text could change
it. Any thread; pure state.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Generator
from typing import TypeVar

from app.core.parsing.tool_calls.answer_parts import Arguments, CallStart, Content, Part, Reasoning

MAX_NAME_LENGTH = 256

_SPACE = re.compile(r"\s*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


T = TypeVar("T")
Steps = Generator[None, None, T]


class MalformedError(ValueError):
    """The text is not in its form, whatever may still come."""


class EndedError(MalformedError):
    """The text ended before its form did."""


class Scanner:
    """A growing text, the place up to which it is read, and the parts that were found.

    White space in front of a call is no part of the content, nor is white space behind a call at the end. ``given`` is
    read first and stands before the text: nothing of it is content, and places are counted from its end.
    """

    def __init__(self, given: str = "") -> None:
        self.text = given
        self.at = 0
        self.is_last = False
        self.num_calls = 0
        self._call_ids: set[str] = set()
        self.has_thought = False
        # Whether the place is within reasoning; within that or within a call that has begun.
        self.is_thinking = False
        self.is_inside = False
        self.has_left = False
        self._parts: list[Part] = []
        self._space = ""
        self._before = "\n"
        self._is_behind_call = False
        self._num_forgotten = -len(given)
        self._num_settled = 0
        self._spans: list[tuple[int, int]] = []

    # what is found

    def content_spans(self) -> list[tuple[int, int]]:
        """Where content stands in the whole text: what was found since the last call."""
        spans, self._spans = self._spans, []
        return spans

    @property
    def settled(self) -> int:
        """Up to which place of the whole text it is certain what that is."""
        return max(self._num_settled, self._num_forgotten + self.at) if self.is_inside else self._num_settled

    def enter_thought(self) -> None:
        """Reasoning begins."""
        self.is_thinking = self.is_inside = True

    def leave(self) -> None:
        """What stands in front of the place is certain, and a call or reasoning no longer."""
        self.is_thinking = self.is_inside = False
        self.has_left = True
        self._num_settled = max(self._num_settled, self._num_forgotten + self.at)

    def taken(self) -> list[Part]:
        """The parts since the last call."""
        parts, self._parts = self._parts, []
        return parts

    def let_go(self, end: int) -> None:
        """What stands before ``end`` is content; white space at its end waits for what follows."""
        self._note_content(self._num_forgotten + self.at, self._num_forgotten + end)
        read, own = self.text[self.at : end], self.text[max(self.at, -self._num_forgotten) : end]
        text, self.at = self._space + own, end
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._before = read[-1:] or self._before
        if shown or read.strip():
            self._is_behind_call = False
        if shown:
            self._parts.append(Content(shown))

    def _note_content(self, start: int, end: int) -> None:
        start, end = max(start, 0), max(end, 0)
        self._num_settled = max(self._num_settled, end)
        if self._spans and self._spans[-1][1] == start:
            self._spans[-1] = self._spans[-1][0], end
        elif end > start:
            self._spans.append((start, end))

    def let_space_go(self) -> None:
        """At the end of the text: white space is content, unless a call stands in front of it."""
        if self._space and not self._is_behind_call:
            self._parts.append(Content(self._space))
        self._space = ""

    def start_call(self, name: str, call_id: str = "") -> None:
        """A call begins. Raises ``MalformedError`` for what cannot be a name. An id that was there before is none."""
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise MalformedError("no name of a function")
        self._space, self._before, self._is_behind_call = "", "", True
        self.num_calls += 1
        self.is_inside = True
        call_id = "" if call_id in self._call_ids else call_id
        self._call_ids.add(call_id)
        self._parts.append(CallStart(_LONE_SURROGATE.sub("\ufffd", name), _LONE_SURROGATE.sub("\ufffd", call_id)))

    def add_arguments(self, text: str) -> None:
        if text:
            self._parts.append(Arguments(text))

    def think(self, text: str) -> None:
        self.has_thought = True
        if text:
            self._parts.append(Reasoning(text))

    @property
    def is_at_line_start(self) -> bool:
        """Whether only white space of its line stands before the place, behind the last call if there is one."""
        return self._before in ("", "\n")

    # what is read

    def peek(self, length: int = 1) -> Steps[str]:
        """The next characters; fewer only where the text ends."""
        while len(self.text) - self.at < length and not self.is_last:
            yield
        return self.text[self.at : self.at + length]

    def is_next(self, *signs: str) -> Steps[bool]:
        """Whether one of ``signs`` stands next."""
        while not self.text.startswith(signs, self.at):
            rest = self.text[self.at : self.at + max(map(len, signs))]
            if self.is_last or not any(sign.startswith(rest) for sign in signs):
                return False
            yield
        return True

    def accept(self, *signs: str) -> Steps[bool]:
        """Read one of ``signs`` where it stands next: the longest."""
        for sign in sorted(signs, key=len, reverse=True):
            if (yield from self.is_next(sign)):
                self.at += len(sign)
                return True
        return False

    def require(self, *signs: str) -> Steps[None]:
        """Read one of ``signs``. Raises ``MalformedError`` where none stands next."""
        if not (yield from self.accept(*signs)):
            raise self.failure(*signs)

    def failure(self, *signs: str) -> MalformedError:
        """What is wrong where one of ``signs`` is due: the text ended before it, or something else stands there."""
        if self.is_last and any(sign.startswith(self.text[self.at :]) for sign in signs):
            self.at = len(self.text)
            return EndedError("the text ends")
        return MalformedError("another sign is due")

    def skip_space(self) -> Steps[None]:
        while True:
            self.at = _end_of(_SPACE, self.text, self.at)
            if self.at < len(self.text) or self.is_last:
                return
            yield

    def skip_frame(self, sign: str) -> Steps[None]:
        """Read ``sign``, which stands next round the content, and the white space on both sides of it."""
        self.at += len(sign)
        self._space = ""
        yield from self.skip_space()

    def run(self, pattern: re.Pattern[str], most: int = MAX_NAME_LENGTH) -> Steps[str]:
        """The longest run of characters of ``pattern`` (a class, repeated). Raises where it is longer than ``most``."""
        while True:
            end = _end_of(pattern, self.text, self.at)
            if end - self.at > most:
                raise MalformedError("too long")
            if end < len(self.text) or self.is_last:
                word, self.at = self.text[self.at : end], end
                return word
            yield

    def until(self, *signs: str, most: int | None = None) -> Steps[str]:
        """The text before the nearest of ``signs``, which is read, too. Raises where there is none within ``most``."""
        start = self.at
        while True:
            found = _any_of(signs).search(self.text, self.at)
            end = len(self.text) if found is None else found.start()
            if most is not None and end - num_held(self.text, self.at, signs) - start > most:
                self.at = start
                raise MalformedError("too long")
            if found is not None:
                self.at = found.end()
                return self.text[start:end]
            if self.is_last:
                self.at = len(self.text)
                raise EndedError(f"{signs[0]} is due")
            self.at = len(self.text) - num_held(self.text, self.at, signs)
            yield

    def piece_until(self, *signs: str) -> Steps[str]:
        """A piece of the text before ``signs``, as it comes; empty where one stands next, unread. Raises at the end."""
        while True:
            found = _any_of(signs).search(self.text, self.at)
            held = 0 if self.is_last else num_held(self.text, self.at, signs)
            end = len(self.text) - held if found is None else found.start()
            if end > self.at or found is not None:
                piece, self.at = self.text[self.at : end], end
                return piece
            if self.is_last:
                raise EndedError(f"{signs[0]} is due")
            yield

    def forget(self) -> None:
        """What is read is not needed any more."""
        self._num_forgotten += self.at
        self.text, self.at = self.text[self.at :], 0

    def content_until(self, *signs: str) -> Steps[str]:
        """Let content go up to the nearest of ``signs``, and give that one back, unread; empty at the text's end."""
        self.leave()
        while True:
            found = _any_of(signs).search(self.text, self.at) if signs else None
            held = 0 if self.is_last else num_held(self.text, self.at, signs)
            self.let_go(len(self.text) - held if found is None else found.start())
            if found is not None:
                return found[0]
            self.forget()
            if self.is_last:
                self.let_space_go()
                return ""
            yield


def num_held(text: str, start: int, signs: tuple[str, ...]) -> int:
    """Length of the longest end of ``text``, from ``start`` on, that begins one of ``signs`` and is not all of it."""
    longest = max(map(len, signs), default=0) - 1
    sizes = range(min(longest, len(text) - start), 0, -1)
    return next((n for n in sizes if any(sign.startswith(text[-n:]) and len(sign) > n for sign in signs)), 0)


@functools.lru_cache(maxsize=128)
def _any_of(signs: tuple[str, ...]) -> re.Pattern[str]:
    """The first of ``signs``, at one place the longest."""
    return re.compile("|".join(re.escape(sign) for sign in sorted(signs, key=len, reverse=True)))


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    assert found is not None, "every pattern matches nothing at least"
    return found.end()
