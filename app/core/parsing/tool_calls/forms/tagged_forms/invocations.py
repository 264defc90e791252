"""`<invoke name="f">`, `<parameter name="k">v</parameter>` for each argument, `</invoke>`, with any prefix of the tags.

An attribute of a parameter may say whether it is a string; else the function's schema does. Pure; any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.core.parsing.tool_calls.bare_values import read_bare_value
from app.core.parsing.tool_calls.json_calls import read_closing
from app.core.parsing.tool_calls.json_text import read_value
from app.core.parsing.tool_calls.known_tools import KnownTools, MemberWriter
from app.core.parsing.tool_calls.scanner import MalformedError, Scanner, Steps

MOST_HEADER = 512

_NAME = re.compile(r"""\s*name\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_IS_STRING = re.compile(r"""string\s*=\s*["']?true""")
_TEXT = frozenset({"string"})


@dataclass(frozen=True, slots=True)
class InvokeTags:
    """The tags, with what stands before each name."""

    prefix: str = ""

    @property
    def opens(self) -> str:
        return f"<{self.prefix}invoke"

    @property
    def closes(self) -> str:
        return f"</{self.prefix}invoke>"

    @property
    def parameter(self) -> str:
        return f"<{self.prefix}parameter"

    @property
    def parameter_end(self) -> str:
        return f"</{self.prefix}parameter>"


def read_invocation(s: Scanner, tags: InvokeTags, tools: KnownTools) -> Steps[None]:
    """A call whose opening tag is read up to its attributes. Its arguments may be one JSON object, too."""
    name, _ = _attributes((yield from s.until(">", most=MOST_HEADER)))
    s.start_call(name)
    yield from s.skip_space()
    if (yield from s.is_next("{")):
        yield from read_value(s, s.add_arguments)
        yield from s.skip_space()
        yield from s.require(tags.closes)
        return
    arguments = MemberWriter(s.add_arguments)
    while (yield from read_closing(s, tags.parameter)):
        key, is_text = _attributes((yield from s.until(">", most=MOST_HEADER)))
        arguments.begin(key)
        types = _TEXT if is_text else tools.types(name, key)
        yield from read_bare_value(s, types, tags.parameter_end)
    yield from s.skip_space()
    yield from s.require(tags.closes)
    arguments.end()


def _attributes(text: str) -> tuple[str, bool]:
    """The name in a tag, and whether it says that its value is a string."""
    found = _NAME.match(text)
    name = next((one for one in found.groups() if one is not None), "") if found is not None else ""
    if found is None or not name.strip():
        raise MalformedError("a tag without a name")
    return name.strip(), _IS_STRING.search(text, found.end()) is not None
