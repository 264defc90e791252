"""``const`` and ``enum``: the values that they leave, and objects and arrays among them as schemas. Pure."""

from __future__ import annotations

from typing import Any

from app.models.json_schemas.nodes import Node
from app.models.json_schemas.shapes import identity


def allowed_values(node: Node) -> list[Any] | None:
    """The values that ``const`` and ``enum`` leave; None where the node has neither."""
    words = node.keywords
    if "const" not in words:
        return words.get("enum")
    if "enum" not in words or any(is_equal(words["const"], value) for value in words["enum"]):
        return [words["const"]]
    return []


def is_equal(one: Any, other: Any) -> bool:
    """As JSON schema has it: numbers by value, and true is not 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_equal(one[name], other[name]) for name in one)
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return False
    return identity(one) == identity(other)


def exactly(value: Any) -> dict[str, Any]:
    """A schema that only an object or array equal to ``value`` matches."""
    if isinstance(value, list):
        items = [{"const": item} for item in value]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(value)}
    return {
        "type": "object",
        "properties": {name: {"const": part} for name, part in value.items()},
        "required": list(value),
        "additionalProperties": False,
    }
