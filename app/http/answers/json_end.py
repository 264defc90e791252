"""Where a JSON object ends that comes in pieces, each character looked at once. HTTP threads; pure state.

What a model writes is no strict JSON: line breaks stand raw in strings, and Python's NaN and Infinity for numbers.
Both are let through here. Whatever else is no JSON fails at once, so that prose is not held back for long.
"""

from __future__ import annotations

import re
from typing import Literal

MAX_DEPTH = 64
MAX_SCALAR_LENGTH = 1000

_SPACE = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'[^"\\]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LONGEST_ESCAPE = len("\\uffff")
_SCALAR = re.compile(r'[^\s,\[\]{}:"]*')
_VALID_SCALAR = re.compile(
    r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity", re.ASCII
)
_CLOSERS = {"{": "}", "[": "]"}

Expected = Literal["value", "item or end", "key", "key or end", "colon", "comma or end"]


class NotJsonError(ValueError):
    """The text is no JSON object, whatever may still come."""


class ObjectEnd:
    """Reads the object that begins at ``start`` of a growing text."""

    def __init__(self, start: int):
        self._at = start
        self._open: list[str] = []
        self._expected: Expected = "value"
        self._is_in_string = False

    def find(self, text: str) -> int | None:
        """The index behind the object's end; None while it is not there. Raises ``NotJsonError``.

        ``text`` is what was there at the last call, and more.
        """
        while self._step(text):
            if not self._open:
                return self._at
        return None

    def _step(self, text: str) -> bool:
        """Read one part; False where it has not come yet."""
        if self._is_in_string:
            return self._read_string(text)
        self._at = _end_of(_SPACE, text, self._at)
        if self._at == len(text):
            return False
        sign = text[self._at]
        if sign in "{[" and self._expected in ("value", "item or end"):
            self._enter(sign)
        elif sign in "}]":
            self._leave(sign)
        elif sign == "," and self._expected == "comma or end":
            self._take("key" if self._open[-1] == "{" else "value")
        elif sign == ":" and self._expected == "colon":
            self._take("value")
        elif sign == '"' and self._expected not in ("colon", "comma or end"):
            self._is_in_string = True
            self._at += 1
        else:
            return self._read_scalar(text)
        return True

    def _enter(self, sign: str) -> None:
        if len(self._open) == MAX_DEPTH:
            raise NotJsonError("nested too deeply")
        self._open.append(sign)
        self._take("key or end" if sign == "{" else "item or end")

    def _leave(self, sign: str) -> None:
        may_end = self._expected in ("key or end", "item or end", "comma or end")
        if not may_end or _CLOSERS[self._open.pop()] != sign:
            raise NotJsonError("closed out of turn")
        self._take("comma or end")

    def _take(self, expected: Expected) -> None:
        self._at += 1
        self._expected = expected

    def _read_string(self, text: str) -> bool:
        self._at = _end_of(_IN_STRING, text, self._at)
        if self._at == len(text):
            return False
        if text[self._at] == '"':
            self._is_in_string = False
            self._take("colon" if self._expected in ("key", "key or end") else "comma or end")
            return True
        escape = _ESCAPE.match(text, self._at)
        if escape is None and len(text) - self._at >= _LONGEST_ESCAPE:
            raise NotJsonError("an escape that JSON does not know")
        self._at = self._at if escape is None else escape.end()
        return escape is not None

    def _read_scalar(self, text: str) -> bool:
        end = _end_of(_SCALAR, text, self._at)
        length = end - self._at
        if self._expected not in ("value", "item or end") or not 0 < length <= MAX_SCALAR_LENGTH:
            raise NotJsonError("something else than JSON")
        if end == len(text):
            return False
        if _VALID_SCALAR.fullmatch(text, self._at, end) is None:
            raise NotJsonError("neither a number nor a literal")
        self._at = end
        self._expected = "comma or end"
        return True


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    assert found is not None, "every pattern matches nothing at least"
    return found.end()
