"""From definitions to the schema that the grammar compiler gets: only what it follows exactly. Pure.

The compiler is llguidance's. What it would approximate, refuse or read in its own way is gone here:
references are to plain definitions, conjunctions are made, alternatives exclude nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.models.json_schemas.extent import Lengths, lengths_of, shortest
from app.models.json_schemas.lowering import Reading
from app.models.json_schemas.nodes import refuse_unsupported
from app.models.json_schemas.patterns import with_ascii_classes
from app.models.json_schemas.shapes import (
    Alternative,
    Anything,
    Array,
    Key,
    Literals,
    Number,
    Object,
    String,
)


@dataclass(frozen=True, slots=True)
class PlainSchema:
    """What the compiler gets. ``has_free_names``: some object's names are the model's to choose; ``counted_at``: the
    place of one that has to have several of those, which may not repeat each other then."""

    text: str
    has_free_names: bool
    counted_at: str | None = None


def plain_schema(schema: Any) -> PlainSchema:
    """``schema`` in the compiler's words. Raises a ``RequestError`` that names the place it fails at."""
    reading = Reading(schema)
    root: Key = (reading.root,)
    emission = Emission(reading, lengths_of(reading, root))
    return emission.whole(root)


class Emission:
    """Writes one schema."""

    def __init__(self, reading: Reading, lengths: Lengths):
        self._reading = reading
        self._lengths = lengths
        self._names: dict[Key, str] = {}
        self._has_free_names = False
        self._counted_at: str | None = None

    def whole(self, root: Key) -> PlainSchema:
        """``root`` and every definition that it needs."""
        return self._with_definitions(self._reference(root))

    def part(self, alternatives: list[Alternative]) -> PlainSchema:
        """The same for some of a definition's alternatives."""
        return self._with_definitions({"anyOf": [self._written(one) for one in alternatives]})

    def _with_definitions(self, top: Any) -> PlainSchema:
        definitions: dict[str, Any] = {}
        written = 0
        while written < len(self._names):
            key, name = list(self._names.items())[written]
            definitions[name] = self._body(key)
            written += 1
        plain = {**top, "$defs": definitions} if isinstance(top, dict) else {}
        return PlainSchema(json.dumps(plain), self._has_free_names, self._counted_at)

    def _reference(self, key: Key) -> Any:
        """A schema for ``key`` to stand where it is used: itself if it is flat, else its name."""
        if self._lengths[key] == math.inf:
            return False
        alternatives = self._possible(key)
        if any(isinstance(one, Anything) for one in alternatives):
            self._has_free_names = True
            return True
        if not any(isinstance(one, Array | Object) for one in alternatives):
            return self._body(key)
        name = self._names.setdefault(key, str(len(self._names)))
        return {"$ref": f"#/$defs/{name}"}

    def _possible(self, key: Key) -> list[Alternative]:
        return [one for one in self._reading.definition(key) if shortest(one, self._lengths) < math.inf]

    def _body(self, key: Key) -> dict[str, Any]:
        options = [self._written(one) for one in self._possible(key)]
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _written(self, one: Alternative) -> dict[str, Any]:
        match one:
            case Literals():
                return {"enum": list(one.values)}
            case Number():
                return number_schema(one)
            case String():
                return _string(one)
            case Array():
                return self._array(one)
            case Object():
                return self._object(one)
            case Anything():
                return {}

    def _array(self, array: Array) -> dict[str, Any]:
        most = array.max_items
        prefix = []
        for i, key in enumerate(array.prefix):
            if self._lengths[key] == math.inf:
                most = i if most is None else min(most, i)
                break
            prefix.append(self._reference(key))
        written = {"type": "array", "items": self._reference(array.rest), "minItems": array.min_items}
        if prefix:
            written["prefixItems"] = prefix
        if most is not None:
            written["maxItems"] = most
        return written

    def _object(self, one: Object) -> dict[str, Any]:
        rest = self._reference(one.rest)
        patterns = {pattern: self._reference(key) for pattern, key in one.patterns.items()}
        if rest is not False or any(schema is not False for schema in patterns.values()):
            self._has_free_names = True
        if rest is not False and any(schema is False for schema in patterns.values()):
            refuse_unsupported(f"{one.pointer}/patternProperties", "forbidding names by a pattern is not supported")
        written = {
            "type": "object",
            "properties": {name: self._reference(key) for name, key in one.properties.items()},
            "required": [name for name in one.properties if name in one.required],
            "additionalProperties": rest,
        }
        if patterns:
            written["patternProperties"] = patterns
        return written | self._counts(one, written)

    def _counts(self, one: Object, written: dict[str, Any]) -> dict[str, Any]:
        """``minProperties`` and ``maxProperties``, as far as they ask for more than the names do."""
        num_required = len(one.required)
        num_optional = sum(schema is not False for schema in written["properties"].values()) - num_required
        is_closed = written["additionalProperties"] is False and "patternProperties" not in written
        least = max(one.min_properties - num_required, 0)
        most = None if one.max_properties is None else one.max_properties - num_required
        if most is not None and is_closed and most >= num_optional:
            most = None
        if not least and most is None:
            return {}
        if num_optional and not (is_closed and least <= 1 and most in (None, 1)):
            word = "minProperties" if least else "maxProperties"
            refuse_unsupported(f"{one.pointer}/{word}", "is not supported beside properties that may be left out")
        if least > 1 and not is_closed:
            self._counted_at = f"{one.pointer}/minProperties"
        bounds = {"minProperties": one.min_properties} if least else {}
        return bounds if most is None else {**bounds, "maxProperties": one.max_properties}


def number_schema(number: Number) -> dict[str, Any]:
    """A schema of ``number`` in the compiler's words."""
    written: dict[str, Any] = {"type": "integer" if number.is_integer else "number"}
    if number.minimum is not None:
        written["exclusiveMinimum" if number.excludes_minimum else "minimum"] = _plain(number.minimum)
    if number.maximum is not None:
        written["exclusiveMaximum" if number.excludes_maximum else "maximum"] = _plain(number.maximum)
    if number.multiple_of is not None:
        written["multipleOf"] = _plain(number.multiple_of)
    return written


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _string(string: String) -> dict[str, Any]:
    written: dict[str, Any] = {"type": "string"}
    if string.min_length:
        written["minLength"] = string.min_length
    if string.max_length is not None:
        written["maxLength"] = string.max_length
    patterns = [with_ascii_classes(pattern) for pattern in string.patterns]
    if len(patterns) == 1:
        return {**written, "pattern": patterns[0]}
    return {**written, "allOf": [{"pattern": pattern} for pattern in patterns]} if patterns else written
