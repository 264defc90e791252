"""What a schema allows, by kind of value: the form in which schemas are intersected, compared and counted.

A ``Key`` is a set of nodes that all hold at once; its definition is a list of alternatives, any of
which may hold. Frozen values without behaviour beyond what they say of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.models.json_schemas.nodes import MAX_COUNT, Node

Key = tuple[Node, ...]
Scalar = str | int | float | bool | None
ANYTHING: Key = ()


@dataclass(frozen=True, slots=True)
class Anything:
    """Any JSON value."""


@dataclass(frozen=True, slots=True)
class Literals:
    """One of these values."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds; ``is_integer`` in the sense of JSON schema, written without a point."""

    is_integer: bool
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    excludes_minimum: bool = False
    excludes_maximum: bool = False
    multiple_of: Decimal | None = None


@dataclass(frozen=True, slots=True)
class String:
    """A string that matches all patterns (searched, as JSON schema has it); lengths in code points."""

    patterns: tuple[str, ...] = ()
    min_length: int = 0
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """``prefix`` by position, then ``rest``."""

    prefix: tuple[Key, ...]
    rest: Key
    min_items: int = 0
    max_items: int | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """``properties`` by name (all that are required among them), others by the pattern that their name matches,
    others still as ``rest``."""

    pointer: str
    properties: Mapping[str, Key]
    required: frozenset[str]
    patterns: Mapping[str, Key]
    rest: Key
    min_properties: int = 0
    max_properties: int | None = None


Alternative = Anything | Literals | Number | String | Array | Object


def conjunction(nodes: Iterable[Node | None]) -> Key:
    """The nodes as a key; None says nothing."""
    return tuple(dict.fromkeys(node for node in nodes if node is not None and node.schema is not True))


def least(one: int | None, other: float | None) -> int | None:
    """The lower of two upper bounds; one that no completion can reach is none."""
    bounds = [int(bound) for bound in (one, other) if bound is not None and bound <= MAX_COUNT]
    return min(bounds, default=None)


def identity(value: Any) -> tuple[str, Any]:
    """Equal for values that JSON schema holds to be equal: 1 and 1.0, but not 1 and true."""
    return ("bool", value) if isinstance(value, bool) else ("value", value)


def as_decimal(value: float) -> Decimal:
    """The number as JSON writes it."""
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def has_number(number: Number) -> bool:
    """Whether any number is within the bounds; a multiple is looked for where there are two bounds."""
    low, high = number.minimum, number.maximum
    step = number.multiple_of or (Decimal(1) if number.is_integer else None)
    if low is None or high is None:
        return True
    if step is None:
        return low < high or (low == high and not number.excludes_minimum and not number.excludes_maximum)
    first = math.ceil(low / step)
    if number.excludes_minimum and first * step == low:
        first += 1
    value = first * step
    return value < high or (value == high and not number.excludes_maximum)
