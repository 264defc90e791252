"""`[f(city="Paris"), g()]`, bare or between `<|python_start|>` and `<|python_end|>`: Llama 4, Llama 3.2's small models.

Source: Meta's pages on the prompt formats of Llama 4 and 3.2, and the chat template of
meta-llama/Llama-4-Scout-17B-16E-Instruct, which asks for Llama 3's JSON in some versions: that is read, too. A bare
list has to begin a line and name a function of the request.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing, read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.python_calls import read_python_calls
from app.core.parsing.tool_calls.scanner import Scanner, Steps

START, END = "<|python_start|>", "<|python_end|>"


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    if sign == START:
        s.at += len(sign)
        if (yield from read_json_calls(s)) or (yield from read_python_calls(s, tools)):
            yield from read_closing(s, END)
    elif s.is_at_line_start and sign == "[":
        yield from read_python_calls(s, tools, tools.names)
    elif s.is_at_line_start:
        yield from read_json_calls(s, tools.names)


LLAMA_PYTHON = CallForm("llama_python", (START, "[", "{"), _read, marks=(END, "<|eom|>"))
