"""How short the shortest value of each definition is; infinite where nothing matches.

The lengths are the least solution of the definitions' equations, found leaves first. Pure; bounded.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Iterator

from app.models.json_schemas.lowering import Reading
from app.models.json_schemas.nodes import refuse, refuse_cost
from app.models.json_schemas.shapes import (
    Alternative,
    Anything,
    Array,
    Key,
    Literals,
    Number,
    Object,
    String,
    has_number,
)

MAX_WORK = 1_000_000
# No completion is as long: a schema that asks for more can only end as cut JSON.
MAX_SHORTEST = 200_000
Lengths = dict[Key, float]


def lengths_of(reading: Reading, root: Key) -> Lengths:
    """Characters of each definition's shortest value. Raises where nothing matches the root, or only huge values."""
    order = _reachable(reading, root)
    rank = {key: i for i, key in enumerate(order)}
    parents: dict[Key, set[Key]] = {key: set() for key in order}
    sizes = {}
    for key in order:
        below = list(_parts(reading.definition(key)))
        sizes[key] = len(below) + 1
        for part in below:
            parents[part].add(key)
    lengths: Lengths = dict.fromkeys(order, math.inf)
    waiting = [-i for i in range(len(order))]
    heapq.heapify(waiting)
    queued, work = set(order), 0
    while waiting:
        key = order[-heapq.heappop(waiting)]
        queued.discard(key)
        work += sizes[key]
        if work > MAX_WORK:
            refuse_cost("", "the schema takes too many steps to read")
        length = min((shortest(one, lengths) for one in reading.definition(key)), default=math.inf)
        if length < lengths[key]:
            lengths[key] = length
            for parent in parents[key] - queued:
                queued.add(parent)
                heapq.heappush(waiting, -rank[parent])
    _require_possible(reading, root, lengths)
    return lengths


def _reachable(reading: Reading, root: Key) -> list[Key]:
    found = {root: None}
    order = [root]
    for key in order:
        for part in _parts(reading.definition(key)):
            if part not in found:
                found[part] = None
                order.append(part)
    return order


def _parts(alternatives: Iterable[Alternative]) -> Iterator[Key]:
    for one in alternatives:
        if isinstance(one, Array):
            yield from (*one.prefix, one.rest)
        elif isinstance(one, Object):
            yield from (*one.properties.values(), *one.patterns.values(), one.rest)


def shortest(one: Alternative, lengths: Lengths) -> float:
    """Characters of the shortest value of one alternative."""
    match one:
        case Anything():
            return 1
        case Literals():
            return min((len(json.dumps(value, ensure_ascii=False)) for value in one.values), default=math.inf)
        case Number():
            return 1 if has_number(one) else math.inf
        case String():
            is_possible = one.max_length is None or one.min_length <= one.max_length
            return one.min_length + 2 if is_possible else math.inf
        case Array():
            return _shortest_array(one, lengths)
        case Object():
            return _shortest_object(one, lengths)


def _shortest_array(array: Array, lengths: Lengths) -> float:
    if array.max_items is not None and array.min_items > array.max_items:
        return math.inf
    first = array.prefix[: array.min_items]
    num_more = array.min_items - len(first)
    more = num_more * (lengths[array.rest] + 2) if num_more else 0
    return 2 + sum(lengths[key] + 2 for key in first) + more


def _shortest_object(one: Object, lengths: Lengths) -> float:
    if one.max_properties is not None and max(len(one.required), one.min_properties) > one.max_properties:
        return math.inf
    costs = {name: lengths[key] + len(name) + 6 for name, key in one.properties.items()}
    length = 2 + sum(costs[name] for name in one.required)
    num_more = one.min_properties - len(one.required)
    if num_more > 0:
        free = [cost for name, cost in costs.items() if name not in one.required and cost < math.inf]
        more = min([lengths[key] for key in (*one.patterns.values(), one.rest)]) + 7
        left = num_more - len(free)
        length += sum(sorted(free)[:num_more]) + (left * more if left > 0 else 0)
    return length


def _require_possible(reading: Reading, root: Key, lengths: Lengths) -> None:
    if lengths[root] == math.inf:
        refuse(*_cause(reading, root, lengths))
    if lengths[root] > MAX_SHORTEST:
        refuse_cost("", f"the shortest value that matches has more than {MAX_SHORTEST} characters")


def _cause(reading: Reading, root: Key, lengths: Lengths) -> tuple[str, str]:
    """Where the first thing stands that nothing can match, and what is the matter."""
    key, seen = root, [root]
    while True:
        deeper = [part for one in reading.definition(key) for part in _needed(one) if lengths[part] == math.inf]
        if not deeper:
            return _place(key), "nothing can match this"
        key = deeper[0]
        if key in seen:
            return _place(key), "requires itself without end"
        seen.append(key)


def _needed(one: Alternative) -> Iterator[Key]:
    if isinstance(one, Array):
        yield from one.prefix[: one.min_items]
        if one.min_items > len(one.prefix):
            yield one.rest
    elif isinstance(one, Object):
        yield from (one.properties[name] for name in one.properties if name in one.required)


def _place(key: Key) -> str:
    return key[0].pointer if key else ""
