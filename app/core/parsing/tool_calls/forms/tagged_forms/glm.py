"""`<tool_call>name`, then `<arg_key>k</arg_key><arg_value>v</arg_value>` for each argument, `</tool_call>`: GLM-4.5.

Source: the chat templates of zai-org/GLM-4.5-Air and GLM-4.7, which leaves the line breaks out. Strings stand bare,
all else as JSON: which of the two a value is tells the function's schema.
"""

from __future__ import annotations

import re

from app.core.parsing.tool_calls.bare_values import read_bare_value
from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools, MemberWriter
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
MOST_KEY = 256

_NAME = re.compile(r"[\w.\-]*")


def _read(s: Scanner, sign: str, tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    yield from s.skip_space()
    name = yield from s.run(_NAME)
    if s.is_last and s.at == len(s.text):
        raise EndedError("a name has no end")
    yield from s.skip_space()
    if not (yield from s.is_next(KEY, CLOSE)):
        failure = s.failure(KEY, CLOSE)
        if isinstance(failure, EndedError) and name:
            s.start_call(name)
        raise failure
    if not name:
        raise MalformedError("no name of a function")
    s.start_call(name)
    arguments = MemberWriter(s.add_arguments)
    while (yield from read_closing(s, KEY)):
        key = (yield from s.until(KEY_END, most=MOST_KEY)).strip()
        yield from s.skip_space()
        yield from s.require(VALUE)
        arguments.begin(key)
        yield from read_bare_value(s, tools.types(name, key), VALUE_END)
    yield from s.skip_space()
    yield from s.require(CLOSE)
    arguments.end()


GLM = CallForm("glm", (OPEN,), _read, marks=(CLOSE, KEY, KEY_END, VALUE, VALUE_END))
