"""DeepSeek's calls, between tokens of their own (wide bars, and U+2581 for spaces):

V3, R1: `<|tool calls begin|><|tool call begin|>function<|tool sep|>name`, a fenced block of JSON, `<|tool call end|>`;
V3.1: `<|tool calls begin|><|tool call begin|>name<|tool sep|>{..}<|tool call end|><|tool calls end|>`.

Source: the chat templates and tokenizers of deepseek-ai/DeepSeek-V3-0324, DeepSeek-R1-0528 and DeepSeek-V3.1.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import begin_json, read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps

CALLS, CALLS_END, CALL, CALL_END, SEPARATOR = (
    f"<\uff5c{name}\uff5c>".replace(" ", "\u2581")
    for name in ("tool calls begin", "tool calls end", "tool call begin", "tool call end", "tool sep")
)
MOST_HEADER = 256
FENCE = "```"


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    if sign == CALLS:
        s.at += len(sign)
        yield from s.skip_space()
    yield from s.require(CALL)
    name = (yield from s.until(SEPARATOR, most=MOST_HEADER)).strip()
    is_fenced = name == "function"
    if is_fenced:
        name = (yield from s.until("\n", most=MOST_HEADER)).strip()
        yield from s.skip_space()
        if (yield from s.accept(FENCE)):
            yield from s.accept("json")
    yield from begin_json(s, name, CALL_END)
    if is_fenced:
        yield from read_closing(s, FENCE)
    if (yield from read_closing(s, CALL_END)):
        yield from read_closing(s, CALLS_END)


DEEPSEEK = CallForm("deepseek", (CALLS, CALL), _read, marks=(CALLS_END, CALL_END, SEPARATOR))
