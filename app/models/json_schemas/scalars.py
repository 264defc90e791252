"""What several nodes allow together among numbers, strings and listed values. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from app.models.json_schemas.nodes import Node, is_number, refuse_cost, refuse_unsupported, shown
from app.models.json_schemas.patterns import check_cost, matches
from app.models.json_schemas.shapes import Key, Literals, Number, Scalar, String, as_decimal, identity, least
from app.models.json_schemas.string_formats import ANNOTATING_FORMATS, FOLLOWED_FORMATS, KNOWN_EQUIVALENTS

ALL_TYPES = frozenset(("null", "boolean", "integer", "number", "string", "array", "object"))
# Grammars compute with doubles; below this every whole number is one.
MAX_EXACT = 2**53
# An automaton for multiples of d has d states: 10,000 take 50 ms to build, 100,000 a second.
MAX_MULTIPLE = 10_000
# What strings can hold without \u escapes, which are never written: then every text has one spelling.
_ESCAPED = frozenset("\b\f\n\r\t")


def types_of(nodes: Key) -> frozenset[str]:
    """The types that all nodes allow; "integer" alone where numbers must be whole."""
    types = ALL_TYPES
    for node in nodes:
        if "type" in node.keywords:
            named = node.keywords["type"]
            allowed = set(named if isinstance(named, list) else [named])
            if "number" in allowed:
                allowed.add("integer")
            if node.keywords.get("nullable"):
                allowed.add("null")
            types &= allowed
    return types


def number_of(nodes: Key, *, is_integer: bool) -> Number:
    """The numbers that all nodes allow."""
    low: tuple[Decimal, bool] | None = None
    high: tuple[Decimal, bool] | None = None
    step: Fraction | None = None
    for node in nodes:
        for value, is_excluded in _bounds(node, "minimum", "exclusiveMinimum"):
            low = (value, is_excluded) if low is None else max(low, (value, is_excluded))
        for value, is_excluded in _bounds(node, "maximum", "exclusiveMaximum"):
            high = (value, is_excluded) if high is None else min(high, (value, is_excluded), key=_tightest_last)
        if "multipleOf" in node.keywords:
            step = _common(step, node)
    return _number(low, high, step, is_integer)


def _tightest_last(bound: tuple[Decimal, bool]) -> tuple[Decimal, bool]:
    return bound[0], not bound[1]


def _bounds(node: Node, keyword: str, exclusive: str) -> list[tuple[Decimal, bool]]:
    """Bounds with whether they are excluded; draft 4 says so with true beside the bound."""
    words = node.keywords
    found = []
    if keyword in words:
        found.append((_exact(words[keyword], node.at(keyword)), words.get(exclusive) is True))
    if is_number(words.get(exclusive)):
        found.append((_exact(words[exclusive], node.at(exclusive)), True))
    return found


def _exact(value: float, pointer: str) -> Decimal:
    number = as_decimal(value)
    if abs(number) > MAX_EXACT:
        refuse_unsupported(pointer, "numbers beyond 2^53 cannot be followed exactly")
    if number and abs(number) < Decimal("1e-9"):
        refuse_unsupported(pointer, "numbers below 1e-9 cannot be followed exactly")
    return number


def _common(step: Fraction | None, node: Node) -> Fraction:
    """The least common multiple of ``step`` and the node's, within what an automaton may take."""
    pointer = node.at("multipleOf")
    own = Fraction(_exact(node.keywords["multipleOf"], pointer))
    if step is not None:
        numerator = math.lcm(step.numerator * own.denominator, own.numerator * step.denominator)
        own = Fraction(numerator, step.denominator * own.denominator)
    size, scale = own, 0
    while size.denominator != 1 and scale < 12:
        size, scale = size * 10, scale + 1
    if size.numerator > MAX_MULTIPLE:
        refuse_cost(pointer, f"multiples of more than {MAX_MULTIPLE} units are too costly to follow")
    if not _is_read_right(own):
        refuse_unsupported(pointer, "this step cannot be followed exactly")
    return own


def _is_read_right(step: Fraction) -> bool:
    """llguidance multiplies a double by ten until it is whole; 0.07 is 0.7000000000000001 on the way."""
    value = float(step)
    exact = step
    for _ in range(12):
        if value.is_integer() or exact.denominator == 1:
            return value.is_integer() and exact == Fraction(value)
        value, exact = value * 10, exact * 10
    return False


def _number(
    low: tuple[Decimal, bool] | None, high: tuple[Decimal, bool] | None, step: Fraction | None, is_integer: bool
) -> Number:
    multiple = None if step is None else Decimal(step.numerator) / Decimal(step.denominator)
    if not is_integer:
        return Number(
            False,
            low and low[0],
            high and high[0],
            bool(low and low[1]),
            bool(high and high[1]),
            multiple,
        )
    minimum = None if low is None else Decimal(math.floor(low[0]) + 1 if low[1] else math.ceil(low[0]))
    maximum = None if high is None else Decimal(math.ceil(high[0]) - 1 if high[1] else math.floor(high[0]))
    return Number(True, minimum, maximum, multiple_of=None if multiple == 1 else multiple)


def string_of(nodes: Key) -> String:
    """The strings that all nodes allow."""
    patterns: list[str] = []
    low, high = 0, None
    for node in nodes:
        words = node.keywords
        low, high = max(low, int(words.get("minLength", 0))), least(high, words.get("maxLength"))
        if "pattern" in words:
            check_cost(words["pattern"], node.at("pattern"))
            patterns.append(words["pattern"])
        if (form := _format(node)) is not None:
            patterns.append(form)
    return String(tuple(dict.fromkeys(patterns)), low, high)


def _format(node: Node) -> str | None:
    if "format" not in node.keywords:
        return None
    name: str = node.keywords["format"]
    name = KNOWN_EQUIVALENTS.get(name, name)
    if name in FOLLOWED_FORMATS:
        return f"^(?:{FOLLOWED_FORMATS[name]})$"
    if name not in ANNOTATING_FORMATS:
        refuse_unsupported(node.at("format"), f"the format {shown(name, 40)!r} is not supported")
    return None


def literals_of(nodes: Key, listed: Sequence[Node], types: frozenset[str]) -> Literals:
    """The scalars that every one of ``listed`` names and all ``nodes`` allow."""
    values = {identity(value): value for value in listed[0].keywords["enum"]}
    for node in listed[1:]:
        others = {identity(value) for value in node.keywords["enum"]}
        values = {key: value for key, value in values.items() if key in others}
    number = number_of(nodes, is_integer="number" not in types)
    string = string_of(nodes)
    place = listed[0].pointer
    left = [value for value in values.values() if fits(value, types, number, string, place)]
    for value in left:
        _require_writable(value, place)
    return Literals(tuple(left))


def fits(value: Scalar, types: frozenset[str], number: Number, string: String, pointer: str) -> bool:
    """Whether a listed value is of an allowed type and within that type's bounds."""
    if value is None or isinstance(value, bool):
        return ("null" if value is None else "boolean") in types
    if isinstance(value, str):
        is_long_enough = len(value) >= string.min_length
        is_short_enough = string.max_length is None or len(value) <= string.max_length
        return (
            "string" in types
            and is_long_enough
            and is_short_enough
            and all(matches(pattern, value, pointer) for pattern in string.patterns)
        )
    return bool(types & {"integer", "number"}) and is_within(as_decimal(value), number)


def is_within(value: Decimal, number: Number) -> bool:
    if number.is_integer and value != value.to_integral_value():
        return False
    if number.minimum is not None and (value, False) < (number.minimum, number.excludes_minimum):
        return False
    if number.maximum is not None and (-value, False) < (-number.maximum, number.excludes_maximum):
        return False
    return number.multiple_of is None or Fraction(value) % Fraction(number.multiple_of) == 0


def _require_writable(value: Any, pointer: str) -> None:
    if isinstance(value, str) and any(char < " " and char not in _ESCAPED for char in value):
        refuse_unsupported(pointer, "control characters in values are not supported")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _exact(value, pointer)
