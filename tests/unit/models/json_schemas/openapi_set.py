"""Schemas as OpenAPI 3.0 and 3.1 documents and their generators hold them."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string", "maxLength": 6}
TRUTH = {"type": "boolean"}


def component(name: str, **schemas: Any) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}


def plain(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


PETS = {
    "Cat": {
        "allOf": [
            {"$ref": "#/components/schemas/Pet"},
            plain(kind={"enum": ["cat"]}, lives={"type": "integer", "minimum": 1, "maximum": 9}),
        ]
    },
    "Dog": {"allOf": [{"$ref": "#/components/schemas/Pet"}, plain(kind={"enum": ["dog"]}, bark=TRUTH)]},
    "Pet": {**plain(kind=TEXT), "required": ["kind"], "additionalProperties": True},
}
FOLLOWED: dict[str, Any] = {
    "password": {"type": "string", "format": "password"},
    "byte": {"type": "string", "format": "byte"},
    "binary": {"type": "string", "format": "binary"},
    "int64": {"type": "integer", "format": "int64"},
    "int32": {"type": "integer", "format": "int32", "minimum": 1},
    "double": {"type": "number", "format": "double"},
    "float": {"type": "number", "format": "float", "minimum": 0.1, "maximum": 0.9},
    "draft 4 bounds": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 3},
    "date": {"type": "string", "format": "date", "example": "2020-01-01"},
    "date-time": {"type": "string", "format": "date-time"},
    "duration": {"type": "string", "format": "duration"},
    "hostname": {"type": "string", "format": "hostname"},
    "unique false": {"type": "array", "items": TRUTH, "uniqueItems": False, "maxItems": 3},
    "min contains 0": {"type": "array", "items": TRUTH, "contains": {"const": True}, "minContains": 0, "maxItems": 3},
    "open true": {**plain(a=TRUTH), "additionalProperties": True},
    "no names": {"type": "object", "additionalProperties": False},
    "free form": {"type": "object"},
    "array of anything": {"type": "array", "items": {}, "maxItems": 2},
    "map of objects": {"type": "object", "additionalProperties": plain(a=TRUTH)},
    "map of three": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "minProperties": 3,
        "maxProperties": 4,
    },
    "one of open objects": {
        "oneOf": [
            {**plain(card=TEXT), "required": ["card"]},
            {**plain(iban=TEXT), "required": ["iban"]},
        ]
    },
    "one of three open objects": {
        "oneOf": [
            {**plain(a=TEXT), "required": ["a"]},
            {**plain(b=TEXT), "required": ["b"]},
            {**plain(c=TEXT), "required": ["c"]},
        ]
    },
    "one of required": {**plain(a=TRUTH, b=TRUTH), "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "any of required": {**plain(a=TRUTH, b=TRUTH), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "one of types": {"oneOf": [TEXT, {"type": "integer"}, TRUTH]},
    "one of ranges": {"oneOf": [{"type": "integer", "maximum": 0}, {"type": "integer", "minimum": 10}]},
    "discriminator": {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/components/schemas/Cat"}},
        "components": {
            "schemas": {
                "Cat": {**plain(kind={"enum": ["cat"]}, lives={"type": "integer"}), "required": ["kind"]},
                "Dog": {**plain(kind={"enum": ["dog"]}, bark=TRUTH), "required": ["kind"]},
            }
        },
    },
    "inheritance": component("Cat", **PETS),
    "one of heirs": {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
        "components": {"schemas": PETS},
    },
    "reference with siblings": {**component("A", A=TEXT), "description": "d", "minLength": 2},
    "all of one": {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": plain(a=TRUTH)}},
    "all of with bounds": {"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]},
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^x-": TEXT, "^[0-9]+$": TRUTH},
        "additionalProperties": False,
    },
    "pattern and others": {
        **plain(id={"type": "integer"}),
        "patternProperties": {"^S_": TEXT},
        "additionalProperties": TRUTH,
    },
    "listed names that a pattern describes": {
        "type": "object",
        "patternProperties": {"[0-9]": TRUTH},
        "propertyNames": {"enum": ["a1", "b"]},
        "additionalProperties": TEXT,
    },
    "few names by pattern": {
        "type": "object",
        "patternProperties": {"^(de|en)$": TEXT},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "dependent nothing": {**plain(a=TRUTH), "dependentRequired": {}},
    "one property at least": {**plain(a=TRUTH, b=TRUTH), "additionalProperties": False, "minProperties": 1},
    "write only": plain(secret={"type": "string", "writeOnly": True, "format": "password"}),
    "xml": {
        **plain(id={"type": "integer", "xml": {"attribute": True}}),
        "xml": {"name": "Item"},
        "externalDocs": {"url": "https://a.b"},
    },
    "extensions": {**plain(a={"type": "string", "x-nullable": True, "maxLength": 2}), "x-tags": ["a"]},
    "several types": {"type": ["string", "null", "integer"], "maxLength": 3},
    "no type": {"maxLength": 3, "minimum": 2},
    "defaults": plain(a={"type": "integer", "default": 5}, b={"type": "array", "items": TEXT, "default": []}),
    "const object": {"const": {"a": [1, "x", None], "b": {"c": 1.5}}},
    "enum of kinds": {"enum": [None, 1, "1", True, [1], {"a": 1}]},
    "nested arrays": {
        "type": "array",
        "maxItems": 2,
        "items": {"type": "array", "maxItems": 2, "items": {"type": "number"}},
    },
    "names to be escaped": {
        **plain(**{'a"b': TRUTH, "c\\d": TRUTH, "e\nf": TRUTH, "g/h~i": TRUTH, "é": TRUTH}),
        "required": ['a"b', "c\\d", "e\nf", "g/h~i", "é"],
    },
    "tuple of draft 7": {"type": "array", "items": [TRUTH, TEXT], "additionalItems": False, "minItems": 2},
    "definitions": {
        "definitions": {"positive": {"type": "integer", "exclusiveMinimum": 0}},
        **plain(a={"$ref": "#/definitions/positive"}),
        "required": ["a"],
    },
    "forbidden property": {**plain(a=TRUTH, b=False), "additionalProperties": TRUTH},
    "closed unevaluated": {**plain(a=TRUTH), "unevaluatedProperties": True},
    "cents": {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 5},
    "required beyond": {
        "type": "object",
        "properties": {"a": TRUTH},
        "required": ["a", "b"],
        "additionalProperties": {"type": "null"},
    },
    "long lengths": {"type": "string", "maxLength": 2147483647},
}
REFUSED: dict[str, tuple[Any, str]] = {
    "not": ({"type": "string", "not": {"const": "a"}}, "not"),
    "conditions": ({**plain(a=TRUTH), "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "if"),
    "dependent": ({**plain(a=TRUTH), "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    "contains": ({"type": "array", "contains": {"const": 1}}, "contains"),
    "unique": ({"type": "array", "items": TEXT, "uniqueItems": True}, "uniqueItems"),
    "one of overlapping": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    "a file": ({"$ref": "file:///etc/passwd"}, "$ref"),
    "another document": ({"$ref": "https://a.b/c.json"}, "$ref"),
    "unknown format": ({"type": "string", "format": "iri"}, "iri"),
    "misspelt": ({"type": "object", "requird": ["a"]}, "requird"),
    "beyond doubles": ({"const": 1234567890123456789}, "2^53"),
    "names of one length": ({"type": "object", "patternProperties": {"^[a-z]{2}$": TEXT}}, "patternProperties"),
}
