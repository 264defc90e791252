"""`<|DSML|invoke name="f"><|DSML|parameter name="k" string="true">v</|DSML|parameter>`: DeepSeek V3.2 and V4.

Source: the encoding that comes with deepseek-ai/DeepSeek-V3.2 (`encoding/encoding_dsv32.py`; the bars are U+FF5C) and
llama.cpp's template of it. V3.2 encloses calls in `function_calls`, V4 in `tool_calls`. An attribute says whether a
value is a string, which stands bare; all else is JSON.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.tagged_forms.invocations import InvokeTags, read_invocation
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

TOKEN = "\uff5cDSML\uff5c"
TAGS = InvokeTags(TOKEN)
OPENS = tuple(f"<{TOKEN}{name}>" for name in ("function_calls", "tool_calls"))
CLOSES = tuple(f"</{TOKEN}{name}>" for name in ("function_calls", "tool_calls"))


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    if sign == TAGS.opens:
        yield from read_invocation(s, TAGS, tools)
    while (yield from read_closing(s, TAGS.opens)):
        yield from read_invocation(s, TAGS, tools)
    yield from read_closing(s, *CLOSES)


DSML = CallForm(
    "dsml",
    (*OPENS, TAGS.opens),
    _read,
    marks=(*CLOSES, TAGS.closes, TAGS.parameter_end, TOKEN),
    ends_thought=OPENS,
)
