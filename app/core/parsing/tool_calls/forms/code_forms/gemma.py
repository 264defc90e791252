"""`<|tool_call>call:f{city:<|"|>Paris<|"|>,days:3}<tool_call|>` (Gemma 4), and FunctionGemma's form of the same.

Source: Google's page on FunctionGemma's formatting (ai.google.dev: `<start_function_call>call:f{k:<escape>v<escape>}
<end_function_call>`) and Gemma 4's chat template. Keys and values are bare but for strings, between signs of their own.
"""

from __future__ import annotations

import re

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.json_text import MAX_DEPTH, Out, collected, read_items, read_scalar, read_string
from app.core.parsing.tool_calls.known_tools import KnownTools, quoted
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

OPENS, CLOSES = ("<|tool_call>", "<start_function_call>"), ("<tool_call|>", "<end_function_call>")
QUOTES = ('<|"|>', "<escape>")
CALL = "call:"

_NAME = re.compile(r"[\w.\-]*")
_KEY = re.compile(r"[^:,{}\[\]<\"\s][^:,{}\[\]<\"]*|")


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    yield from s.skip_space()
    yield from s.require(CALL)
    name = yield from s.run(_NAME)
    if s.is_last and s.at == len(s.text):
        raise EndedError("a name has no end")
    if not (yield from s.is_next("{")):
        raise MalformedError("no arguments")
    s.start_call(name)
    yield from _read_value(s, s.add_arguments, MAX_DEPTH)
    yield from read_closing(s, *CLOSES)


def _read_value(s: Scanner, out: Out, depth: int) -> Steps[None]:
    yield from s.skip_space()
    if (yield from s.is_next("{")):
        yield from read_items(s, out, depth, "}", "{}", _read_member)
    elif (yield from s.is_next("[")):
        yield from read_items(s, out, depth, "]", "[]", _read_value)
    elif (yield from s.is_next('"')):
        yield from read_string(s, out)
    elif (yield from s.is_next(*QUOTES)):
        yield from _read_quoted(s, out)
    else:
        yield from read_scalar(s, out)


def _read_member(s: Scanner, out: Out, depth: int) -> Steps[None]:
    yield from _read_key(s, out)
    yield from _read_value(s, out, depth)


def _read_key(s: Scanner, out: Out) -> Steps[None]:
    if (yield from s.is_next(*QUOTES)):
        key = yield from collected(s, _read_quoted)
    elif (yield from s.is_next('"')):
        key = yield from collected(s, read_string)
    else:
        key = quoted((yield from s.run(_KEY)).strip())
    yield from s.skip_space()
    yield from s.require(":")
    out(f"{key}: ")


def _read_quoted(s: Scanner, out: Out) -> Steps[None]:
    """A string between two of the same signs; nothing in it is escaped."""
    quote = QUOTES[0] if (yield from s.accept(QUOTES[0])) else QUOTES[1]
    if quote == QUOTES[1]:
        yield from s.require(quote)
    out('"')
    while piece := (yield from s.piece_until(quote)):
        out(quoted(piece)[1:-1])
    yield from s.require(quote)
    out('"')


GEMMA = CallForm("gemma", OPENS, _read, marks=(*CLOSES, *QUOTES))
