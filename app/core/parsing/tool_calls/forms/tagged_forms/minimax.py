"""`<minimax:tool_call><invoke name="f"><parameter name="k">v</parameter></invoke></minimax:tool_call>`: MiniMax M2.

Source: MiniMax' tool calling guide (`docs/tool_calling_guide.md` of MiniMaxAI/MiniMax-M2) and its chat template.
A pair of outer tags may hold several; strings stand bare, all else as JSON.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.tagged_forms.invocations import InvokeTags, read_invocation
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

OPEN, CLOSE = "<minimax:tool_call>", "</minimax:tool_call>"
TAGS = InvokeTags()


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    while (yield from read_closing(s, TAGS.opens)):
        yield from read_invocation(s, TAGS, tools)
    yield from read_closing(s, CLOSE)


MINIMAX = CallForm("minimax", (OPEN,), _read, marks=(CLOSE, TAGS.closes, TAGS.parameter_end))
