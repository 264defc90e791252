"""Values of a schema in a notation that is not JSON's, as rules: Python's literals, Gemma's. HTTP threads; pure.

What a notation does in its own way says its ``ValueStyle``. Names of an object that the schema leaves to the model are
free only where it describes none itself; nothing keeps those apart here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Protocol

from app.models.grammars.calls.lark_rules import LarkRules, string
from app.models.grammars.calls.members import MemberRule, TooManyMembersError, member_rules
from app.models.json_schemas.emission import number_schema
from app.models.json_schemas.extent import Lengths, shortest
from app.models.json_schemas.lowering import Reading
from app.models.json_schemas.nodes import escape, refuse_cost, refuse_unsupported
from app.models.json_schemas.shapes import (
    ANYTHING,
    Alternative,
    Anything,
    Array,
    Key,
    Literals,
    Number,
    Object,
    Scalar,
    String,
)

MAX_LISTED_ITEMS = 100
ANY_NUMBER = '{"type": "number"}'


class ValueStyle(Protocol):
    """How strings, words, names and lists are written."""

    between: str
    colon: str
    is_sorted: bool

    def literal(self, rules: LarkRules, value: Scalar) -> str | None:
        """One scalar; None where it cannot be written."""

    def text(self, rules: LarkRules, allowed: String, pointer: str) -> str:
        """Any string that is ``allowed``."""

    def name(self, rules: LarkRules, name: str, pointer: str) -> str:
        """The name of a member. Raises ``UnsupportedParameterError`` for one that cannot be written."""

    def free_name(self, rules: LarkRules, pattern: str | None, pointer: str) -> str:
        """Any name of a member, of those that ``pattern`` is found in."""


class ValueRules:
    """Writes the values of one schema."""

    def __init__(self, rules: LarkRules, style: ValueStyle, reading: Reading, lengths: Lengths):
        self._rules = rules
        self._style = style
        self._reading = reading
        self._lengths = lengths
        self._names: dict[Key, str] = {}
        self._any = ""
        self._between = string(style.between)

    def possible(self, key: Key) -> list[Alternative]:
        """The alternatives of ``key`` that anything matches."""
        return [one for one in self._reading.definition(key) if shortest(one, self._lengths) < math.inf]

    def is_possible(self, key: Key) -> bool:
        return self._lengths[key] < math.inf

    def value(self, key: Key) -> str:
        """The name of the rule for the values of ``key``."""
        if key not in self._names:
            name = self._names[key] = self._rules.fresh()
            pointer = key[0].pointer if key else ""
            options = [written for one in self.possible(key) if (written := self.written(one, pointer)) is not None]
            if not options:
                refuse_unsupported(pointer, "none of these values can be written in this model's calls")
            self._rules.add(name, " | ".join(options))
        return self._names[key]

    def written(self, one: Alternative, pointer: str) -> str | None:
        """The body of a rule for ``one``; None where its values cannot be written."""
        rules, style = self._rules, self._style
        match one:
            case Literals():
                found = [text for value in one.values if (text := style.literal(rules, value)) is not None]
                return " | ".join(found) or None
            case Number():
                return rules.json(json.dumps(number_schema(one)))
            case String():
                return style.text(rules, one, pointer)
            case Array():
                return f'"[" {self._items(one, pointer)} "]"'
            case Object():
                return f'"{{" {self.members(one)} "}}"'
            case Anything():
                return self._anything()

    def _items(self, array: Array, pointer: str) -> str:
        low, high = array.min_items, array.max_items
        listed = [key for key in array.prefix if self.is_possible(key)]
        is_closed = len(listed) < len(array.prefix) or not self.is_possible(array.rest)
        if len(listed) > MAX_LISTED_ITEMS:
            refuse_cost(pointer, f"has more than {MAX_LISTED_ITEMS} items by position")
        if is_closed:
            high = len(listed) if high is None else min(high, len(listed))
        listed = listed if high is None else listed[:high]
        body = self._rest(array.rest, len(listed), low, high)
        for at, key in reversed(list(enumerate(listed))):
            one = f"{self._between if at else ''} {self.value(key)} {body}"
            body = one if at < low else f"({one})?"
        return body

    def _rest(self, key: Key, num_before: int, low: int, high: int | None) -> str:
        """Items behind those by position; with none of those, the first stands without a comma."""
        least = max(low - num_before, 0)
        most = None if high is None else high - num_before
        if most == 0:
            return ""
        one = self.value(key)
        if num_before:
            return repeated(f"{self._between} {one}", least, most)
        more = repeated(f"{self._between} {one}", max(least - 1, 0), None if most is None else most - 1)
        return f"{one} {more}" if least else f"({one} {more})?"

    def members(self, one: Object) -> str:
        """The members of an object, between its brackets."""
        return members_of(
            self, self._rules, one, self._between, self._named, self._free, is_sorted=self._style.is_sorted
        )

    def _named(self, name: str, key: Key, pointer: str) -> str:
        return f"{self._style.name(self._rules, name, pointer)} {string(self._style.colon)} {self.value(key)}"

    def _free(self, pattern: str | None, key: Key, pointer: str) -> str:
        name = self._style.free_name(self._rules, pattern, pointer)
        return f"{name} {string(self._style.colon)} {self.value(key)}"

    def _anything(self) -> str:
        """Any value at all."""
        if not self._any:
            rules, style, between = self._rules, self._style, self._between
            name = self._any = rules.fresh()
            words = " | ".join(str(style.literal(rules, word)) for word in (True, False, None))
            scalars = f"{words} | {rules.json(ANY_NUMBER)} | {style.text(rules, String(), '')}"
            pair = self._free(None, ANYTHING, "")
            rules.add(
                name,
                f'{scalars} | "[" ({name} ({between} {name})*)? "]" | "{{" ({pair} ({between} {pair})*)? "}}"',
            )
        return self._any


class _Named(Protocol):
    def __call__(self, name: str, key: Key, pointer: str, /) -> str: ...


class _Free(Protocol):
    def __call__(self, pattern: str | None, key: Key, pointer: str, /) -> str: ...


class _Possible(Protocol):
    def is_possible(self, key: Key) -> bool: ...


def members_of(
    values: _Possible,
    rules: LarkRules,
    one: Object,
    between: str,
    named: _Named,
    free: _Free,
    *,
    is_sorted: bool = False,
) -> str:
    """The body of a rule for the members of ``one``. Raises a ``RequestError`` for what cannot be held."""
    names = [name for name, key in one.properties.items() if values.is_possible(key)]
    if not names:
        return _free_members(values, one, between, free)
    members = [
        MemberRule(named(name, one.properties[name], f"{one.pointer}/properties/{escape(name)}"), name in one.required)
        for name in (sorted(names) if is_sorted else names)
    ]
    word = "minProperties" if one.min_properties > len(one.required) else "maxProperties"
    try:
        body = member_rules(rules, members, between, one.min_properties, one.max_properties)
    except TooManyMembersError:
        refuse_cost(f"{one.pointer}/{word}", "there are too many properties to be counted")
    if body is None:
        text = "cannot be followed in this model's calls, which hold no other names than the schema's own"
        refuse_unsupported(f"{one.pointer}/{word}", text)
    return body


def _free_members(values: _Possible, one: Object, between: str, free: _Free) -> str:
    """Members whose names are the model's to choose. They may repeat each other, so that only one can be asked for."""
    pairs = list(_free_pairs(values, one, free))
    if one.min_properties > 1 and pairs:
        refuse_unsupported(f"{one.pointer}/minProperties", "names of the model's own cannot be told apart in its calls")
    if not pairs or one.max_properties == 0:
        return ""
    pair = pairs[0] if len(pairs) == 1 else f"({' | '.join(pairs)})"
    more = repeated(f"{between} {pair}", 0, None if one.max_properties is None else one.max_properties - 1)
    return f"{pair} {more}" if one.min_properties else f"({pair} {more})?"


def _free_pairs(values: _Possible, one: Object, free: _Free) -> Iterator[str]:
    open_patterns = [(pattern, key) for pattern, key in one.patterns.items() if values.is_possible(key)]
    place = f"{one.pointer}/patternProperties"
    if len(one.patterns) > 1 or (one.patterns and values.is_possible(one.rest)):
        refuse_unsupported(place, "names by several rules are not supported in this model's calls")
    if open_patterns:
        yield free(open_patterns[0][0], open_patterns[0][1], place)
    elif values.is_possible(one.rest):
        yield free(None, one.rest, one.pointer)


def repeated(body: str, least: int, most: int | None) -> str:
    """``body`` so many times; empty for none."""
    return "" if most == 0 else f"({body}){{{least},{'' if most is None else most}}}"
