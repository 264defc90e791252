"""`<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{..}<|tool_call_end|>` : Kimi K2 and later.

Source: Moonshot's page on tool calls (`docs/tool_call_guidance.md` of moonshotai/Kimi-K2-Instruct) and the chat
template of Kimi-K2-Thinking. Calls stand in a section. The id holds the name and counts a conversation's calls; the
template writes it back as it is, so that callers are given the model's own.
"""

from __future__ import annotations

import re

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import begin_json, read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import MalformedError, Scanner, Steps

CALLS, CALLS_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
MOST_ID = 300

_ID = re.compile(r"(?:functions\.)?([^\s:]+)(?::[0-9]+)?")


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    if sign == CALLS:
        s.at += len(sign)
        yield from s.skip_space()
    yield from s.require(CALL)
    call_id = (yield from s.until(ARGUMENTS, most=MOST_ID)).strip()
    found = _ID.fullmatch(call_id)
    if found is None:
        raise MalformedError("no name of a function")
    yield from begin_json(s, found[1], CALL_END, call_id=call_id)
    if (yield from read_closing(s, CALL_END)):
        yield from read_closing(s, CALLS_END)


KIMI = CallForm("kimi", (CALLS, CALL), _read, marks=(CALLS_END, ARGUMENTS, CALL_END), ends_thought=(CALLS,))
