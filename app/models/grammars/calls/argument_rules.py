"""The arguments of a call as a rule, in its notation: they follow the function's schema. HTTP threads; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.core.errors import BadRequestError
from app.core.parsing.tool_calls.forms.code_forms.gemma import QUOTES
from app.core.parsing.tool_calls.forms.tagged_forms import dsml
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.models.grammars.calls.bare_value_rules import BareValueRules
from app.models.grammars.calls.lark_rules import JSON_FORM, LarkRules, string
from app.models.grammars.calls.literal_styles import GemmaStyle, JsonWordStyle, PythonStyle, bare_name
from app.models.grammars.calls.marked_value_rules import MarkedValueRules
from app.models.grammars.calls.notation_table import Arguments
from app.models.grammars.calls.value_rules import ValueRules, members_of
from app.models.json_schemas.emission import Emission, plain_schema
from app.models.json_schemas.extent import lengths_of
from app.models.json_schemas.lowering import Reading
from app.models.json_schemas.nodes import refuse_unsupported, shown
from app.models.json_schemas.shapes import Key, Object

# Signs around the name and the value of an argument: before the name, between both, before the closing tag, the tag,
# behind it.
_TAGS: dict[str, tuple[str, str, str, str, str]] = {
    "qwen_coder": ("<parameter=", ">\n", "\n", "</parameter>", "\n"),
    "seed_oss": ("<parameter=", ">", "", "</parameter>", "\n"),
    "minimax": ('<parameter name="', '">', "", "</parameter>", "\n"),
    "dsml": (f'{dsml.TAGS.parameter} name="', '"', "", dsml.TAGS.parameter_end, "\n"),
    "glm": ("<arg_key>", "</arg_key>\n<arg_value>", "", "</arg_value>", "\n"),
    "glm_compact": ("<arg_key>", "</arg_key><arg_value>", "", "</arg_value>", ""),
}
# Arguments that are written as Python's.
_STYLES = {"python": PythonStyle, "python_with_json_words": JsonWordStyle}
_TAGGED_NAME = r"[^<>\s\"']+"
_KEYWORD_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
MAX_NAME_LENGTH = 200


def argument_rule(
    rules: LarkRules, form: Arguments, name: str, schema: Mapping[str, Any], *, keeps_names_apart: bool
) -> tuple[str, bool]:
    """The body of a rule for the arguments of ``name``, and whether names in them are the model's to choose.

    ``keeps_names_apart``: those of one object will not repeat each other.

    Raises a ``BadRequestError`` with the function and the place in its schema that cannot be followed.
    """
    whole = {"type": "object", **schema}
    rules.function = name
    try:
        if form == "json":
            plain = plain_schema(whole)
            if plain.counted_at is not None and not keeps_names_apart:
                refuse_unsupported(plain.counted_at, "names of the model's own cannot be told apart behind free text")
            return "%json " + json.dumps({**json.loads(plain.text), "x-guidance": JSON_FORM}), plain.has_free_names
        return _Arguments(rules, form, name, whole).body(), False
    except BadRequestError as error:
        raise type(error)(f"{name}: {error.message}", param="tools") from None


class _Arguments:
    """Arguments of one function in a notation of their own."""

    def __init__(self, rules: LarkRules, form: Arguments, name: str, schema: dict[str, Any]):
        self._rules = rules
        self._form = form
        self._name = name
        self._tools = KnownTools([{"function": {"name": name, "parameters": schema}}])
        self._reading = Reading(schema)
        self._root: Key = (self._reading.root,)
        self._lengths = lengths_of(self._reading, self._root)
        style = _STYLES[form]() if form in _STYLES else GemmaStyle(QUOTES[form == "function_gemma"])
        self._values = ValueRules(rules, style, self._reading, self._lengths)

    def body(self) -> str:
        objects = [one for one in self._values.possible(self._root) if isinstance(one, Object)]
        if not objects:
            refuse_unsupported("", "arguments are an object")
        written = [self._object(one) for one in objects]
        return written[0] if len(written) == 1 else " | ".join(f"({one})" for one in written)

    def _object(self, one: Object) -> str:
        if self._form in _TAGS:
            return members_of(self._values, self._rules, one, "", self._tagged, self._tagged_freely)
        if self._form in _STYLES:
            return members_of(self._values, self._rules, one, string(", "), self._keyword, self._keyword_freely)
        return self._values.written(one, "") or ""

    def _keyword(self, name: str, key: Key, pointer: str) -> str:
        if not re.fullmatch(r"[^\W\d]\w*", name) or len(name) > MAX_NAME_LENGTH:
            _refuse_name(name, pointer)
        return f"{string(f'{name}=')} {self._values.value(key)}"

    def _keyword_freely(self, pattern: str | None, key: Key, pointer: str) -> str:
        name = bare_name(self._rules, _KEYWORD_NAME, pattern, pointer)
        return f'{name} "=" {self._values.value(key)}'

    def _tagged(self, name: str, key: Key, pointer: str) -> str:
        opens, between, _, _, behind = _TAGS[self._form]
        if name != name.strip().strip("\"'") or not name or len(name) > MAX_NAME_LENGTH or set(name) & set('<>"\n'):
            _refuse_name(name, pointer)
        types = self._tools.types(self._name, name)
        before = self._rules.literal(f"{opens}{name}{between}")
        return f"{before} ({self._bare(key, types, pointer)}) {self._rules.literal(behind)}"

    def _tagged_freely(self, pattern: str | None, key: Key, pointer: str) -> str:
        opens, between, _, _, behind = _TAGS[self._form]
        name = bare_name(self._rules, _TAGGED_NAME, pattern, pointer)
        before, after = self._rules.literal(opens), self._rules.literal(between)
        return f"{before} {name} {after} ({self._bare(key, frozenset(), pointer)}) {self._rules.literal(behind)}"

    def _bare(self, key: Key, types: frozenset[str], pointer: str) -> str:
        _, _, lead, tag, _ = _TAGS[self._form]
        emission, possible = Emission(self._reading, self._lengths), self._values.possible(key)
        if self._form == "dsml":
            return MarkedValueRules(self._rules, emission, tag).value(possible, pointer)
        return BareValueRules(self._rules, emission, lead, tag).value(possible, types, pointer)


def _refuse_name(name: str, pointer: str) -> None:
    refuse_unsupported(pointer, f"the name {shown(name, 40)!r} cannot be written in this model's calls")
