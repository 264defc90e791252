"""`<|tools_prefix|>[{"f": {..}}, {"g": {..}}]<|tools_suffix|>`: Apertus, where the name is the key of the arguments.

Source: the chat template of swiss-ai/Apertus-8B-Instruct-2509. Calls may stand within its thoughts.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.json_text import collected, read_string, read_value, string_value
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

OPEN, CLOSE = "<|tools_prefix|>", "<|tools_suffix|>"


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    yield from read_closing(s, "[")
    while (yield from read_closing(s, "{")):
        yield from _read_call(s)
        yield from read_closing(s, ",")
    yield from read_closing(s, "]")
    yield from read_closing(s, CLOSE)


def _read_call(s: Scanner) -> Steps[None]:
    """The call whose bracket is read."""
    yield from s.skip_space()
    name = string_value((yield from collected(s, read_string)))
    yield from s.skip_space()
    yield from s.require(":")
    yield from s.skip_space()
    if not (yield from s.is_next("{")):
        failure = s.failure("{")
        if isinstance(failure, EndedError):
            s.start_call(name)
        raise failure
    s.start_call(name)
    yield from read_value(s, s.add_arguments)
    if not (yield from read_closing(s, "}")):
        raise MalformedError("a call has one name")


APERTUS = CallForm("apertus", (OPEN,), _read, marks=(CLOSE,), ends_thought=(OPEN,))
