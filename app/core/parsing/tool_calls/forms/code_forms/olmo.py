"""`<function_calls>`, a line `f(city='Paris', is_new=true)` for each call, `</function_calls>`: OLMo 3.

Source: the chat template of allenai/Olmo-3-7B-Instruct (vLLM's `tool_chat_template_olmo3.jinja`): Python's calls, with
JSON's words for true, false and null.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.python_calls import read_python_calls
from app.core.parsing.tool_calls.scanner import Scanner, Steps

OPEN, CLOSE = "<function_calls>", "</function_calls>"


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    num_before = -1
    while num_before < s.num_calls:
        num_before = s.num_calls
        yield from read_python_calls(s, tools)
    yield from read_closing(s, CLOSE)


OLMO = CallForm("olmo", (OPEN,), _read, marks=(CLOSE,))
