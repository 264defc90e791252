"""`{"name": .., "parameters": {..}}`, bare or behind `<|python_tag|>`: Llama 3.1, 3.2 and 3.3; several with `;`.

Source: the chat template of meta-llama/Llama-3.1-8B-Instruct and Meta's page on its prompt format. A bare object has
to begin a line and name a function of the request: else it is JSON that somebody asked for.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

TAG = "<|python_tag|>"


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    if sign == TAG:
        s.at += len(sign)
        yield from read_json_calls(s)
    elif s.is_at_line_start:
        yield from read_json_calls(s, tools.names)


LLAMA_JSON = CallForm("llama_json", (TAG, "{"), _read, marks=("<|eom_id|>",))
