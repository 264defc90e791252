"""Calls that are written as Python's: `f(city="Paris", days=[1, 2])`, and values as Python writes them.

Nothing is evaluated: literals are read, sign by sign, and passed on as JSON. Pure; any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from app.core.parsing.tool_calls.json_text import MAX_DEPTH, Out, collected, read_items, read_scalar, whole
from app.core.parsing.tool_calls.known_tools import KnownTools, MemberWriter, quoted
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

_NAME = re.compile(r"[\w.]*")
_WORD = re.compile(r"\w*")
_PLAIN = {quote: re.compile(rf"[^{quote}\\\x00-\x1f]*") for quote in "\"'"}
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[^xuU])", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""} | {
    sign: sign for sign in "\\\"'"
}
_LENGTHS = {"x": 4, "u": 6, "U": 10}
_BRACKETS = {"[": "]", "(": ")"}


def read_python_calls(s: Scanner, tools: KnownTools, known: Collection[str] | None = None) -> Steps[bool]:
    """Read calls that follow each other, or a list of them; whether there was one."""
    start, num_before = s.at, s.num_calls
    yield from s.skip_space()
    is_list = yield from s.accept("[")
    while True:
        before, num_calls = s.at, s.num_calls
        yield from s.skip_space()
        try:
            yield from _read_call(s, tools, known)
        except EndedError:
            s.at = len(s.text)
            break
        except MalformedError:
            s.at = s.at if s.num_calls > num_calls else before
            break
        before = s.at
        yield from s.skip_space()
        if not (yield from s.accept(",", ";")):
            s.at = before
            break
    before = s.at
    yield from s.skip_space()
    if not (is_list and (yield from s.accept("]"))):
        s.at = before
    if s.num_calls == num_before:
        s.at = start
    return s.num_calls > num_before


def _read_call(s: Scanner, tools: KnownTools, known: Collection[str] | None) -> Steps[None]:
    name = yield from s.run(_NAME)
    yield from s.require("(")
    if not name or (known is not None and name not in known):
        raise MalformedError("no name of a function")
    arguments: MemberWriter | None = None
    index = 0
    try:
        while True:
            yield from s.skip_space()
            if (yield from s.accept(")")):
                break
            key, value = yield from _read_key(s, name, index, tools)
            if arguments is None:
                s.start_call(name)
                arguments = MemberWriter(s.add_arguments)
            arguments.begin(key)
            s.add_arguments(value) if value else (yield from read_python_value(s, s.add_arguments))
            index += 1
            yield from s.skip_space()
            if not (yield from s.accept(",")):
                yield from s.require(")")
                break
    except EndedError:
        if arguments is None:
            s.start_call(name)
        raise
    if arguments is None:
        s.start_call(name)
        arguments = MemberWriter(s.add_arguments)
    arguments.end()


def _read_key(s: Scanner, name: str, index: int, tools: KnownTools) -> Steps[tuple[str, str]]:
    """The key of the argument that stands next; with its value where that had to be read to know it has no key."""
    start = s.at
    key = yield from s.run(_WORD)
    yield from s.skip_space()
    if key and not key[0].isdecimal() and (yield from s.accept("=")):
        return key, ""
    if s.is_last and s.at == len(s.text):
        raise EndedError("an argument has no end")
    s.at = start
    place = tools.parameter_at(name, index)
    if place is None:
        raise MalformedError("an argument without a name")
    return place, (yield from collected(s, read_python_value))


def read_python_value(s: Scanner, out: Out, depth: int = MAX_DEPTH) -> Steps[None]:
    """Pass one literal on to ``out`` as JSON. Raises ``MalformedError`` where there is none."""
    yield from s.skip_space()
    sign = yield from s.peek()
    if sign in ("'", '"'):
        yield from read_python_string(s, out)
    elif sign == "{":
        yield from read_items(s, out, depth, "}", "{}", _read_item)
    elif sign in _BRACKETS:
        yield from read_items(s, out, depth, _BRACKETS[sign], "[]", read_python_value)
    else:
        yield from read_scalar(s, out)


def python_whole(text: str) -> str | None:
    """One literal as JSON; None where ``text`` is none."""
    return whole(text, read_python_value)


def _read_item(s: Scanner, out: Out, depth: int) -> Steps[None]:
    """A key and its value; keys that are no strings become some."""
    key = yield from collected(s, read_python_value)
    out(key if key.startswith('"') else quoted(key))
    yield from s.skip_space()
    yield from s.require(":")
    out(": ")
    yield from read_python_value(s, out, depth)


def read_python_string(s: Scanner, out: Out) -> Steps[None]:
    """Pass a string on, its pieces as they come; strings of three quotes, too."""
    quote = yield from s.peek()
    closing = quote * 3 if (yield from s.is_next(quote * 3)) else quote
    s.at += len(closing)
    out('"')
    while True:
        found = _PLAIN[quote].match(s.text, s.at)
        if found is not None and found.end() > s.at:
            s.at = found.end()
            out(quoted(found[0])[1:-1])
        sign = yield from s.peek()
        if sign == "":
            raise EndedError("a string has no end")
        if sign == "\\":
            yield from _read_escape(s, out)
        elif sign == quote and (yield from s.accept(closing)):
            break
        else:
            s.at += 1
            out(quoted(sign)[1:-1])
    out('"')


def _read_escape(s: Scanner, out: Out) -> Steps[None]:
    """An escape; a backslash that begins none stands for itself."""
    start = yield from s.peek(2)
    length = _LENGTHS.get(start[1:], 2)
    if len((yield from s.peek(length))) < length and s.is_last:
        s.at = len(s.text)
        raise EndedError("an escape has no end")
    found = _ESCAPE.match(s.text, s.at)
    code = found[0] if found is not None else ""
    s.at += len(code) or 1
    out(_as_json(code))


def _as_json(code: str) -> str:
    if code[1:2] in ("x", "u", "U"):
        number = int(code[2:], 16)
        # As an escape, so that halves of surrogate pairs find each other.
        return f"\\u{number:04x}" if number < 0x10000 else json.dumps(chr(min(number, 0x10FFFF)))[1:-1]
    text = _SIMPLE.get(code[1:], code or "\\")
    return quoted(text)[1:-1]
