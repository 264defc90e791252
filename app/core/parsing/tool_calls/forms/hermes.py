"""`<tool_call>{"name": .., "arguments": {..}}</tool_call>`: Hermes, Qwen 2.5 and 3, Granite 4 and many more.

Source: the chat templates of NousResearch/Hermes-3-Llama-3.1-8B, Qwen/Qwen3-8B and ibm-granite/granite-4.0-micro.
A call needs no closing tag, and one pair of tags may hold several.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing, read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    if (yield from read_json_calls(s)):
        yield from read_closing(s, CLOSE)


HERMES = CallForm("hermes", (OPEN,), _read, marks=(CLOSE,))
