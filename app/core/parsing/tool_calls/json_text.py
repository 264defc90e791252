"""JSON that a model writes, passed on in pieces as JSON that every parser reads. Pure; any thread.

Line breaks may stand raw in strings, Python's NaN, None and True for values, a comma before a bracket. Numbers and
escapes stay as they were written: a double holds only some of a number's digits, no UTF-8 half a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

MAX_DEPTH = 64
MAX_SCALAR_LENGTH = 1000
CONSTANTS = {"NaN": "null", "Infinity": "null", "-Infinity": "null", "None": "null", "True": "true", "False": "false"}

_SCALAR = re.compile(r'[^\s,\[\]{}:"<>|`()\']*')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null", re.ASCII)
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LONGEST_ESCAPE = len("\\uffff")

Out = Callable[[str], None]


def read_value(s: Scanner, out: Out, depth: int = MAX_DEPTH) -> Steps[None]:
    """Pass one value on to ``out``. Raises ``MalformedError`` where there is none."""
    yield from s.skip_space()
    sign = yield from s.peek()
    if sign == "{":
        yield from read_items(s, out, depth, "}", "{}", _read_member)
    elif sign == "[":
        yield from read_items(s, out, depth, "]", "[]", read_value)
    elif sign == '"':
        yield from read_string(s, out)
    else:
        yield from read_scalar(s, out)


def read_items(
    s: Scanner, out: Out, depth: int, closing: str, brackets: str, read: Callable[[Scanner, Out, int], Steps[None]]
) -> Steps[None]:
    """Pass what stands between the bracket that is next and ``closing`` on, item by item, in JSON's ``brackets``.

    A comma may stand behind the last item. Raises ``MalformedError``, also for what is nested too deeply.
    """
    if depth == 0:
        raise MalformedError("nested too deeply")
    s.at += 1
    out(brackets[0])
    between = ""
    while True:
        yield from s.skip_space()
        if (yield from s.accept(closing)):
            break
        out(between)
        between = ", "
        yield from read(s, out, depth - 1)
        yield from s.skip_space()
        if not (yield from s.accept(",")):
            yield from s.require(closing)
            break
    out(brackets[1])


def _read_member(s: Scanner, out: Out, depth: int) -> Steps[None]:
    yield from read_string(s, out)
    yield from s.skip_space()
    yield from s.require(":")
    out(": ")
    yield from read_value(s, out, depth)


def read_string(s: Scanner, out: Out) -> Steps[None]:
    """Pass a string on, its pieces as they come."""
    yield from s.require('"')
    out('"')
    while True:
        found = _PLAIN.match(s.text, s.at)
        if found is not None and found.end() > s.at:
            s.at = found.end()
            out(found[0])
        sign = yield from s.peek()
        if sign == "":
            raise EndedError("a string has no end")
        elif sign == '"':
            s.at += 1
            out('"')
            return
        elif sign == "\\":
            yield from _read_escape(s, out)
        elif sign < " ":
            s.at += 1
            out(json.dumps(sign)[1:-1])


def _read_escape(s: Scanner, out: Out) -> Steps[None]:
    """An escape; a backslash that begins none stands for itself."""
    start = yield from s.peek(2)
    if start == "\\u":
        yield from s.peek(_LONGEST_ESCAPE)
    found = _ESCAPE.match(s.text, s.at)
    if found is None and s.is_last and len(s.text) - s.at < _LONGEST_ESCAPE:
        s.at = len(s.text)
        raise EndedError("an escape has no end")
    s.at = s.at + 1 if found is None else found.end()
    out("\\\\" if found is None else found[0])


def read_scalar(s: Scanner, out: Out) -> Steps[None]:
    """Pass a number, true, false or null on; what JSON has no word for is null."""
    word = yield from s.run(_SCALAR, MAX_SCALAR_LENGTH)
    if word in CONSTANTS:
        out(CONSTANTS[word])
    elif _NUMBER.fullmatch(word):
        out(word)
    elif s.is_last and s.at == len(s.text):
        raise EndedError("a value has no end")
    else:
        s.at -= len(word)
        raise MalformedError("neither a number nor a literal")


def collected(s: Scanner, read: Callable[[Scanner, Out], Steps[None]]) -> Steps[str]:
    """What ``read`` passes on, whole."""
    pieces: list[str] = []
    yield from read(s, pieces.append)
    return "".join(pieces)


def whole(text: str, read: Callable[[Scanner, Out], Steps[None]] = read_value) -> str | None:
    """``text`` as JSON, which ``read`` makes of it; None where it is none."""
    s = Scanner()
    s.text, s.is_last = text, True
    pieces: list[str] = []
    try:
        for _ in read(s, pieces.append):
            raise AssertionError("a whole text needs no more")
        for _ in s.skip_space():
            raise AssertionError("a whole text needs no more")
    except MalformedError:
        return None
    return "".join(pieces) if s.at == len(text) else None


def string_value(source: str) -> str:
    """The text that a JSON string stands for."""
    value: Any = json.loads(source)
    assert isinstance(value, str), "it was read as a string"
    return value
