"""Regular expressions over a text that grows: where a match is certain, and where one may still begin.

RE2 matches in linear time, but it neither takes a text in pieces nor says whether more text could bring an earlier
match. Both are asked as questions of their own: a match is certain once a character follows it, and one may still
begin where the rest of the text matches the pattern's own beginnings. Pure; any thread.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import re2

# Instructions of RE2's program; a class of characters as \\pL takes about 1,200.
MAX_PROGRAM_SIZE = 2000
MAX_TOTAL_SIZE = 6000
MAX_MEMORY_BYTES = 2**18
# What Python reads in another way than RE2 does: POSIX classes, and a repetition without a minimum.
_READ_OTHERWISE = ("[[:", "[:", "{,")


class GrowingPattern:
    """One pattern, multi-line. Raises ``re2.error`` where it is invalid or too large."""

    def __init__(self, pattern: str):
        self._whole = _compile(f"(?m:{pattern})", MAX_PROGRAM_SIZE)
        self.size = int(self._whole.programsize)
        self._certain = _compile(f"(?m:{pattern})(?s:.)", 2 * MAX_PROGRAM_SIZE)
        self._live = _compile_live(pattern)

    def first(self, text: str, start: int, *, is_last: bool) -> int | None:
        """Where the first match begins that no further text can undo; at the end of the text, the first at all."""
        match = (self._whole if is_last else self._certain).search(text, start)
        return None if match is None else int(match.start())

    def live(self, text: str, start: int) -> int:
        """Where the first match may begin that further text could complete; ``start`` where that is not known."""
        match = None if self._live is None else self._live.search(text, start)
        return start if match is None else int(match.start())


@functools.lru_cache(maxsize=64)
def growing(pattern: str) -> GrowingPattern:
    """The pattern, compiled once for many sequences."""
    return GrowingPattern(pattern)


def _compile(pattern: str, limit: int) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY_BYTES
    compiled = re2.compile(pattern, options)
    if max(compiled.programsize, compiled.reverseprogramsize) > limit:
        raise re2.error("the pattern is too large")
    return compiled


def _compile_live(pattern: str) -> re2._Regexp | None:
    """What matches the beginnings of the pattern's matches at the end of a text; None where that is not known.

    Python's parser, which never runs the pattern, tells its parts.
    """
    if any(sign in pattern for sign in _READ_OTHERWISE):
        return None
    try:
        parsed = re._parser.parse(pattern, re.MULTILINE)  # type: ignore[attr-defined]
        ignores_case = "(?i)" if parsed.state.flags & re.IGNORECASE else ""
        dot_is_all = "(?s)" if parsed.state.flags & re.DOTALL else ""
        return _compile(f"{ignores_case}{dot_is_all}(?m:{_beginnings(list(parsed))})\\z", 2 * MAX_PROGRAM_SIZE)
    except (re.error, re2.error, RecursionError, OverflowError, _UnknownError):
        return None


class _UnknownError(Exception):
    """A part of a pattern that RE2 does not know, or that is not told apart here."""


Node = tuple[Any, Any]


def _beginnings(nodes: Sequence[Node]) -> str:
    """A pattern for the beginnings of what ``nodes`` match, the empty one included."""
    text = ""
    for node in reversed(nodes):
        own = _beginnings_of(node)
        behind = f"{_written([node])}{text}" if text else ""
        choices = [choice for choice in (behind or _written([node]), own) if choice]
        text = f"(?:{'|'.join(choices)})?"
    return text


def _beginnings_of(node: Node) -> str:
    """The beginnings of one part that are neither empty nor all of it; empty where there are none."""
    kind, value = str(node[0]), node[1]
    if kind == "BRANCH":
        return f"(?:{'|'.join(_beginnings(list(branch)) for branch in value[1])})"
    if kind == "SUBPATTERN":
        return _in_group(value, _beginnings)
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        _, most, inside = value
        before = (
            "" if most == 1 else f"(?:{_written(list(inside))}){_times(0, most if _is_endless(most) else most - 1)}"
        )
        return before + _beginnings(list(inside))
    return ""


def _written(nodes: Sequence[Node]) -> str:
    """``nodes`` in RE2's syntax."""
    return "".join(map(_written_node, nodes))


def _written_node(node: Node) -> str:
    kind, value = str(node[0]), node[1]
    if kind in _SIMPLE:
        return _SIMPLE[kind](value)
    if kind == "BRANCH":
        return f"(?:{'|'.join(_written(list(branch)) for branch in value[1])})"
    if kind == "SUBPATTERN":
        return _in_group(value, _written)
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, inside = value
        return f"(?:{_written(list(inside))}){_times(least, most)}"
    raise _UnknownError(kind)


def _in_group(value: Any, write: Callable[[Sequence[Node]], str]) -> str:
    _, added, removed, inside = value
    on, off = _flags(added), _flags(removed)
    return f"(?{on}{'-' + off if off else ''}:{write(list(inside))})"


def _flags(flags: int) -> str:
    return "".join(sign for sign, flag in (("i", re.I), ("m", re.M), ("s", re.S)) if flags & flag)


def _times(least: int, most: int) -> str:
    return f"{{{least},}}" if _is_endless(most) else f"{{{least},{most}}}"


def _is_endless(most: int) -> bool:
    return bool(most == re._constants.MAXREPEAT)  # type: ignore[attr-defined]


def _class(items: Sequence[Node]) -> str:
    return f"[{''.join(_SIMPLE[str(kind)](value) for kind, value in items)}]"


def _range(ends: tuple[int, int]) -> str:
    return f"{_character(ends[0])}-{_character(ends[1])}"


def _character(code: int) -> str:
    return f"\\x{{{code:x}}}"


_CATEGORIES = {
    f"CATEGORY_{name}": sign
    for name, sign in (
        ("DIGIT", "\\d"),
        ("NOT_DIGIT", "\\D"),
        ("SPACE", "\\s"),
        ("NOT_SPACE", "\\S"),
        ("WORD", "\\w"),
        ("NOT_WORD", "\\W"),
    )
}
_PLACES = {"AT_BEGINNING": "^", "AT_END": "$", "AT_BEGINNING_STRING": "\\A", "AT_BOUNDARY": "\\b"} | {
    "AT_NON_BOUNDARY": "\\B"
}
_SIMPLE: dict[str, Callable[[Any], str]] = {
    "LITERAL": _character,
    "NOT_LITERAL": lambda code: f"[^{_character(code)}]",
    "ANY": lambda _: ".",
    "IN": _class,
    "RANGE": _range,
    "NEGATE": lambda _: "^",
    "CATEGORY": lambda name: _CATEGORIES[str(name)],
    "AT": lambda name: _PLACES[str(name)],
}
