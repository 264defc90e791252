"""`<|action_start|><|plugin|>{"name": .., "parameters": {..}}<|action_end|>`: InternLM 2 and later.

Source: InternLM's page on its chat format (`chat/chat_format.md`) and vLLM's `tool_chat_template_internlm2_tool.jinja`,
which says `arguments`. What goes to the interpreter is code, no call.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

OPEN, PLUGIN, CLOSE = "<|action_start|>", "<|plugin|>", "<|action_end|>"


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    yield from s.skip_space()
    if (yield from s.is_next(PLUGIN)):
        yield from read_enclosed_calls(s, PLUGIN, CLOSE)


INTERNLM = CallForm("internlm", (OPEN,), _read, marks=(PLUGIN, CLOSE))
