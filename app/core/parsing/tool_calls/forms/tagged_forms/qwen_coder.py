"""`<tool_call><function=name><parameter=k>` value `</parameter></function></tool_call>`: Qwen3-Coder, Nemotron 3.

Source: the chat template and tool parser of Qwen/Qwen3-Coder-30B-A3B-Instruct. A value stands on lines of its own;
strings stand bare, all else as JSON. The model often leaves out the outer tag, which is not needed here.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.bare_values import read_bare_value
from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools, MemberWriter
from app.core.parsing.tool_calls.scanner import MalformedError, Scanner, Steps

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END = "<function=", "</function>", "<parameter=", "</parameter>"
MOST_NAME = 256


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    if sign == OPEN:
        s.at += len(sign)
        yield from s.skip_space()
    yield from read_function(s, tools, is_on_lines=True)
    yield from read_closing(s, CLOSE)


def read_function(s: Scanner, tools: KnownTools, *, is_on_lines: bool) -> Steps[None]:
    """A call without its outer tags. ``is_on_lines``: each value stands on lines of its own."""
    yield from s.require(FUNCTION)
    name = (yield from s.until(">", most=MOST_NAME)).strip().strip("\"'")
    if not name or any(sign in name for sign in "<\n"):
        raise MalformedError("no name of a function")
    s.start_call(name)
    arguments = MemberWriter(s.add_arguments)
    while (yield from read_closing(s, PARAMETER)):
        key = (yield from s.until(">", most=MOST_NAME)).strip().strip("\"'")
        arguments.begin(key)
        yield from read_bare_value(s, tools.types(name, key), PARAMETER_END, is_on_lines=is_on_lines)
    yield from s.skip_space()
    yield from s.require(FUNCTION_END)
    arguments.end()


QWEN_CODER = CallForm("qwen_coder", (OPEN, FUNCTION), _read, marks=(CLOSE, FUNCTION_END, PARAMETER, PARAMETER_END))
