"""`<seed:tool_call><function=f><parameter=k>v</parameter></function></seed:tool_call>`: Seed-OSS.

Source: the chat template of ByteDance-Seed/Seed-OSS-36B-Instruct. Qwen3-Coder's form with another outer tag and no line
breaks around a value; what is no string is written as Python writes it.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.tagged_forms.qwen_coder import (
    FUNCTION,
    FUNCTION_END,
    PARAMETER,
    PARAMETER_END,
    read_function,
)
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

OPEN, CLOSE = "<seed:tool_call>", "</seed:tool_call>"


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    yield from s.skip_space()
    yield from read_function(s, tools, is_on_lines=False)
    yield from read_closing(s, CLOSE)


SEED_OSS = CallForm("seed_oss", (OPEN,), _read, marks=(CLOSE, FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END))
