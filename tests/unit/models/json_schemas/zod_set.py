"""JSON schemas as zod 4's ``toJSONSchema`` writes them, with its formats and patterns."""

from __future__ import annotations

from typing import Any

DRAFT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
SAFE = {"minimum": -9007199254740991, "maximum": 9007199254740991}
TEXT, TRUTH = {"type": "string"}, {"type": "boolean"}


def closed(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """``z.object`` of the fields."""
    required = list(properties) if required is None else required
    return {
        **DRAFT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        **more,
    }


FOLLOWED: dict[str, Any] = {
    "string": TEXT,
    "number": {"type": "number"},
    "int": {"type": "integer", **SAFE},
    "int32": {"type": "integer", "minimum": -2147483648, "maximum": 2147483647},
    "positive": {"type": "number", "exclusiveMinimum": 0},
    "step": {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 10},
    "boolean": TRUTH,
    "null": {"type": "null"},
    "any": {},
    "union of two": {"anyOf": [TRUTH, TEXT]},
    "literal": {"type": "string", "const": "tuna"},
    "literals": {"enum": ["a", 1, True]},
    "enum": {"type": "string", "enum": ["Salmon", "Tuna", "Trout"]},
    "object": closed({"name": TEXT, "ok": TRUTH}),
    "optional": closed({"name": TEXT, "nick": TEXT}, ["name"]),
    "all optional": closed({"a": TRUTH, "b": TRUTH, "c": TRUTH}, []),
    "default": closed({"size": {"default": 3, "type": "integer", "minimum": 0, "maximum": 9}}),
    "nullable": closed({"name": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]}}),
    "loose object": {"type": "object", "properties": {"name": TEXT}, "required": ["name"], "additionalProperties": {}},
    "catchall": {
        "type": "object",
        "properties": {"a": TRUTH},
        "required": ["a"],
        "additionalProperties": {"type": "number"},
    },
    "record": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}},
    "record of names": {
        "type": "object",
        "propertyNames": {"type": "string", "enum": ["a", "b"]},
        "additionalProperties": TRUTH,
        "required": ["a", "b"],
    },
    "record by pattern": {
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[a-z]+$"},
        "additionalProperties": TRUTH,
    },
    "array": {"type": "array", "items": TRUTH},
    "array of some": {"type": "array", "items": TRUTH, "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [TEXT, {"type": "number"}]},
    "tuple with rest": {"type": "array", "prefixItems": [TEXT], "items": TRUTH},
    "union": {"anyOf": [TEXT, {"type": "number"}, {"type": "null"}]},
    "discriminated union": {
        "oneOf": [
            closed({"status": {"type": "string", "const": "success"}, "data": TEXT}),
            closed({"status": {"type": "string", "const": "failed"}, "error": TEXT}),
        ]
    },
    "intersection": {
        "allOf": [
            {"type": "object", "properties": {"a": TRUTH}, "required": ["a"]},
            {"type": "object", "properties": {"b": TRUTH}, "required": ["b"]},
        ]
    },
    "recursive": {
        **DRAFT,
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 3},
            "sub": {"maxItems": 2, "type": "array", "items": {"$ref": "#"}},
        },
        "required": ["name", "sub"],
        "additionalProperties": False,
    },
    "mutually recursive": {
        "$ref": "#/$defs/user",
        "$defs": {
            "user": closed(
                {
                    "email": {"type": "string", "maxLength": 3},
                    "posts": {"type": "array", "items": {"$ref": "#/$defs/post"}},
                }
            ),
            "post": closed(
                {
                    "title": {"type": "string", "maxLength": 3},
                    "author": {"anyOf": [{"$ref": "#/$defs/user"}, {"type": "null"}]},
                }
            ),
        },
    },
    "json": {
        "$ref": "#/$defs/json",
        "$defs": {
            "json": {
                "anyOf": [
                    TEXT,
                    {"type": "number"},
                    TRUTH,
                    {"type": "null"},
                    {"type": "array", "items": {"$ref": "#/$defs/json"}},
                    {"type": "object", "propertyNames": TEXT, "additionalProperties": {"$ref": "#/$defs/json"}},
                ]
            }
        },
    },
    "uuid": {
        "type": "string",
        "format": "uuid",
        "pattern": "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-"
        "[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}|00000000-0000-0000-0000-000000000000)$",
    },
    "guid": {"type": "string", "format": "guid"},
    "date-time": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "uri": {"type": "string", "format": "uri"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "cuid": {"type": "string", "format": "cuid", "pattern": "^[cC][^\\s-]{8,}$"},
    "nanoid": {"type": "string", "format": "nanoid", "pattern": "^[a-zA-Z0-9_-]{21}$"},
    "ulid": {"type": "string", "format": "ulid", "pattern": "^[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}$"},
    "e164": {"type": "string", "format": "e164", "pattern": "^\\+[1-9]\\d{6,14}$"},
    "base64": {"type": "string", "format": "base64", "contentEncoding": "base64"},
    "regex": {"type": "string", "pattern": "^[a-f]{2,4}$"},
    "starts with": {"type": "string", "pattern": "^ab.*", "maxLength": 9},
    "includes": {"type": "string", "pattern": "ab", "maxLength": 9},
    "described": {
        "type": "string",
        "title": "T",
        "description": "D",
        "examples": ["a"],
        "deprecated": True,
        "maxLength": 2,
    },
    "read only": closed({"a": {"type": "boolean", "readOnly": True}}),
    "email": {"type": "string", "format": "email"},
}
REFUSED: dict[str, tuple[Any, str]] = {
    "email with look-ahead": (
        {
            "type": "string",
            "format": "email",
            "pattern": "^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]"
            "@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$",
        },
        "look-around",
    ),
    "set": ({"type": "array", "uniqueItems": True, "items": TEXT}, "uniqueItems"),
    "never": ({"not": {}}, "not"),
}
