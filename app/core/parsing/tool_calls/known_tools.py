"""The functions of one request: their names, and the types of their parameters. Pure; any thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from app.core.parsing.tool_calls.json_text import whole

_KINDS = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
# Kinds of which JSON writes the same words.
_ALIKE = {"integer": "number"}


class KnownTools:
    """Made of descriptions as OpenAI's API has them."""

    def __init__(self, tools: list[dict[str, Any]] | None = None):
        functions = [tool.get("function", {}) for tool in tools or []]
        self._parameters = {one.get("name", ""): one.get("parameters") or {} for one in functions}
        self.names = frozenset(self._parameters)

    def types(self, function: str, parameter: str) -> frozenset[str]:
        """The types that the parameter's schema names; empty where that is not known."""
        properties = self._parameters.get(function, {}).get("properties")
        schema = properties.get(parameter) if isinstance(properties, dict) else None
        return frozenset(_types(schema))

    def parameter_at(self, function: str, index: int) -> str | None:
        """The name of a parameter by its place."""
        properties = self._parameters.get(function, {}).get("properties")
        names = list(properties) if isinstance(properties, dict) else []
        return names[index] if index < len(names) else None


def _types(schema: Any, depth: int = 4) -> set[str]:
    if not isinstance(schema, dict) or depth == 0:
        return set()
    named = schema.get("type")
    found = {one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str)}
    for key in ("anyOf", "oneOf"):
        choices = schema.get(key)
        for choice in choices if isinstance(choices, list) else []:
            found |= _types(choice, depth - 1)
    values = schema.get("enum")
    if not found and isinstance(values, list) and all(isinstance(one, str) for one in values):
        found.add("string")
    return {_ALIKE.get(one, one) for one in found}


def is_text(types: frozenset[str]) -> bool:
    """Whether a value of these types can be nothing but a string."""
    return types == {"string"}


def typed(text: str, types: frozenset[str]) -> str:
    """A bare value as JSON: of a type that the schema names, else whatever it reads as, else a string."""
    source = None if is_text(types) else whole(text)
    if source is None or ("string" in types and kind_of(source) not in types - {"string"}):
        return quoted(text)
    return source


def kind_of(source: str) -> str:
    """The type of a value that is written as JSON."""
    return _KINDS.get(source[:1], "number")


def quoted(text: str) -> str:
    """A string as JSON."""
    return json.dumps(text, ensure_ascii=False)


class MemberWriter:
    """Writes the arguments of a call member by member."""

    def __init__(self, out: Callable[[str], None]):
        self._out = out
        self._between = ""
        out("{")

    def begin(self, key: str) -> None:
        """The next member; its value follows."""
        self._out(f"{self._between}{quoted(key)}: ")
        self._between = ", "

    def end(self) -> None:
        self._out("}")
