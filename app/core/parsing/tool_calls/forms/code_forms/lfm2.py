"""`<|tool_call_start|>[f(city="Paris")]<|tool_call_end|>`: LFM2 and LFM2.5; JSON in the list where a prompt wants it.

Source: Liquid AI's page on tool use (docs.liquid.ai) and the model card of LiquidAI/LFM2-1.2B-Tool.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing, read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.python_calls import read_python_calls
from app.core.parsing.tool_calls.scanner import Scanner, Steps

START, END = "<|tool_call_start|>", "<|tool_call_end|>"


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    if (yield from read_json_calls(s)) or (yield from read_python_calls(s, tools)):
        yield from read_closing(s, END)


LFM2 = CallForm("lfm2", (START,), _read, marks=(END,))
