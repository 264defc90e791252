"""The functions of one request: their names, and the types of their parameters. Pure; any thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from app.core.parsing.tool_calls.json_text import whole

_KINDS = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
# Kinds of which JSON writes the same words.
_ALIKE = {"integer": "number"}
# Of choices in choices and references to references.
MAX_DEPTH = 6


class KnownTools:
    """Made of descriptions as OpenAI's API has them."""

    def __init__(self, tools: list[dict[str, Any]] | None = None):
        functions = [tool.get("function", {}) for tool in tools or []]
        self._parameters = {one.get("name", ""): one.get("parameters") or {} for one in functions}
        self.names = frozenset(self._parameters)

    def types(self, function: str, parameter: str) -> frozenset[str]:
        """The types that the parameter's schema names; empty where that is not known."""
        root = self._parameters.get(function, {})
        properties = root.get("properties")
        schema = properties.get(parameter) if isinstance(properties, dict) else None
        return frozenset(_types(schema, root) or ())

    def parameter_at(self, function: str, index: int) -> str | None:
        """The name of a parameter by its place."""
        properties = self._parameters.get(function, {}).get("properties")
        names = list(properties) if isinstance(properties, dict) else []
        return names[index] if index < len(names) else None


def _types(schema: Any, root: Any, depth: int = MAX_DEPTH) -> set[str] | None:
    """The types of a schema's values; None where it does not say. Each keyword that does says it for all."""
    if not isinstance(schema, dict) or depth == 0:
        return None
    said: list[set[str]] = []
    named = schema.get("type")
    if isinstance(named, str | list):
        said.append({_ALIKE.get(one, one) for one in ([named] if isinstance(named, str) else named) if _is_name(one)})
        if schema.get("nullable") is True:
            said[-1].add("null")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        said.append({kind_of(json.dumps(value)) for value in values})
    for keyword in ("anyOf", "oneOf"):
        if isinstance(parts := schema.get(keyword), list):
            choices = [_types(part, root, depth - 1) for part in parts]
            if None not in choices:
                said.append(set().union(*(choice or () for choice in choices)))
    parts = schema.get("allOf")
    others = [*(parts if isinstance(parts, list) else []), _referred(schema.get("$ref"), root)]
    said += [found for one in others if (found := _types(one, root, depth - 1)) is not None]
    return set.intersection(*said) if said else None


def _is_name(one: Any) -> bool:
    return isinstance(one, str)


def _referred(reference: Any, root: Any) -> Any:
    """The schema that a reference into the same schema means; None where there is none."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for part in reference.split("/")[1:]:
        found = found.get(unquote(part).replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


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
