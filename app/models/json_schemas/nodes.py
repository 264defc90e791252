"""The nodes of a caller's schema: where each lies, which keywords it has, and whether each is understood.

A keyword is followed, asks nothing, or is refused by its name and place; none is passed over. Pure
functions; HTTP threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import unquote

from app.core.errors import ConstraintTooCostlyError, InvalidParameterError, UnsupportedParameterError

Schema = dict[str, Any] | bool
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# Keywords that say nothing about a value. Names that begin with "x-" belong to whoever made the schema.
ANNOTATIONS = frozenset(
    (
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$comment",
        "$vocabulary",
        "title",
        "description",
        "default",
        "example",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "externalDocs",
        "xml",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "$defs",
        "definitions",
        "components",
        "enumNames",
        "markdownDescription",
    )
)
FOLLOWED = frozenset(
    (
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "const",
        "enum",
        "type",
        "nullable",
        "format",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
    )
)
MAX_NODES = 4000
MAX_COUNT = 1_000_000
MAX_ENUM_VALUES = 4000
MAX_PATTERN_CHARS = 4096
MAX_PATTERN_PROPERTIES = 32


@dataclass(frozen=True, slots=True)
class Node:
    """A schema and where it lies (JSON pointer); two nodes of one place are the same."""

    pointer: str
    schema: Schema = field(compare=False, hash=False)

    def at(self, keyword: str, *more: str | int) -> str:
        """The pointer of a keyword of this node, or of something below it."""
        return "/".join([self.pointer, *(escape(str(part)) for part in (keyword, *more))])

    @property
    def keywords(self) -> dict[str, Any]:
        return self.schema if isinstance(self.schema, dict) else {}


def escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def refuse(pointer: str, text: str) -> NoReturn:
    """The schema is not one, or nothing can match it."""
    raise InvalidParameterError(f"{place(pointer)}: {text}")


def refuse_unsupported(pointer: str, text: str) -> NoReturn:
    raise UnsupportedParameterError(f"{place(pointer)}: {text}")


def refuse_cost(pointer: str, text: str) -> NoReturn:
    raise ConstraintTooCostlyError(f"{place(pointer)}: {text}")


def place(pointer: str) -> str:
    """A pointer for people; nodes that we made stand at what they were made of."""
    return f"#{shown(pointer.partition('#')[0])}"


def shown(text: str, most: int = 120) -> str:
    """What a caller sent, short enough for a message."""
    return text if len(text) <= most else f"{text[:most]}..."


def check_node(node: Node) -> None:
    """Raise a ``RequestError`` for a keyword that is not understood, or has a value of the wrong kind."""
    if isinstance(node.schema, bool):
        return
    if not isinstance(node.schema, dict):
        refuse(node.pointer, "a schema is an object, true or false")
    for keyword, value in node.schema.items():
        if keyword in FOLLOWED:
            _check_value(node, keyword, value)
        elif not (keyword in ANNOTATIONS or keyword.startswith("x-") or _asks_nothing(keyword, value, node.schema)):
            refuse_unsupported(node.at(keyword), f"the keyword {shown(keyword, 40)!r} is not supported")


def _asks_nothing(keyword: str, value: Any, schema: dict[str, Any]) -> bool:
    """Keywords that are not followed, with values that every value satisfies."""
    match keyword:
        case "uniqueItems":
            return value is False or (value is True and schema.get("maxItems") in (0, 1))
        case "contains":
            return schema.get("minContains") == 0 and "maxContains" not in schema
        case "minContains":
            return "contains" not in schema or value == 0
        case "maxContains":
            return "contains" not in schema
        case "if":
            return "then" not in schema and "else" not in schema
        case "then" | "else":
            return "if" not in schema
        case "dependentRequired" | "dependentSchemas" | "dependencies":
            return bool(value == {})
        case "unevaluatedProperties" | "unevaluatedItems":
            return value is True or value == {}
        case "not":
            return value is False
    return False


def _check_value(node: Node, keyword: str, value: Any) -> None:
    if not _is_right(keyword, value):
        refuse(node.at(keyword), f"is not what {keyword!r} takes")
    if keyword == "enum" and len(value) > MAX_ENUM_VALUES:
        refuse_cost(node.at(keyword), f"has more than {MAX_ENUM_VALUES} values")
    if keyword == "patternProperties" and len(value) > MAX_PATTERN_PROPERTIES:
        refuse_cost(node.at(keyword), f"has more than {MAX_PATTERN_PROPERTIES} patterns")
    if keyword in ("minLength", "minItems", "minProperties") and value > MAX_COUNT:
        refuse_cost(node.at(keyword), f"is above {MAX_COUNT}")


def _is_right(keyword: str, value: Any) -> bool:
    match keyword:
        case "$ref" | "format" | "pattern":
            return isinstance(value, str)
        case "nullable":
            return isinstance(value, bool)
        case "type":
            names = value if isinstance(value, list) else [value]
            return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)
        case "enum":
            return isinstance(value, list)
        case "allOf" | "anyOf" | "oneOf":
            return isinstance(value, list) and len(value) > 0
        case "prefixItems":
            return isinstance(value, list)
        case "required":
            return isinstance(value, list) and all(isinstance(name, str) for name in value)
        case "propertyNames":
            return isinstance(value, dict | bool)
        case "properties" | "patternProperties":
            return isinstance(value, dict)
        case "minimum" | "maximum" | "multipleOf":
            return bool(is_number(value) and (keyword != "multipleOf" or value > 0))
        case "exclusiveMinimum" | "exclusiveMaximum":
            return is_number(value) or isinstance(value, bool)
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            return bool(is_number(value) and value >= 0 and math.floor(value) == value)
        case _:
            return True


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def resolve(root: Node, reference: str, pointer: str) -> Node:
    """The node that ``$ref`` means; only places in the same schema can be meant."""
    if reference != "#" and not reference.startswith("#/"):
        refuse_unsupported(pointer, "only references into the same schema (#/...) are supported")
    found: Any = root.schema
    parts = [unquote(part).replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/")]
    parts = parts if reference not in ("#", "#/") else []
    for part in parts:
        if isinstance(found, list) and part.isascii() and part.isdigit() and int(part[:9]) < len(found):
            found = found[int(part[:9])]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            refuse(pointer, "refers to a place that is not in the schema")
    return Node("".join(f"/{escape(part)}" for part in parts), found)
