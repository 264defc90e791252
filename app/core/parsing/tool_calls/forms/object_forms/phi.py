"""`<|tool_call|>[{"name": .., "arguments": {..}}]<|/tool_call|>` and `functools[{..}]`: Phi-4-mini.

Source: the model card and special tokens of microsoft/Phi-4-mini-instruct; vLLM's `tool_chat_template_phi4_mini.jinja`,
which asks for `functools` and no closing sign.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls, read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

OPEN, CLOSE, FUNCTOOLS = "<|tool_call|>", "<|/tool_call|>", "functools["


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    if sign == OPEN:
        yield from read_enclosed_calls(s, sign, CLOSE)
        return
    s.at += len(sign) - 1
    yield from read_json_calls(s)


PHI = CallForm("phi", (OPEN, FUNCTOOLS), _read, marks=(CLOSE,))
