"""``oneOf``: makes its alternatives exclude one another, so that any of them may be followed.

Two alternatives exclude each other where no value matches both: by type, by listed values (a
discriminator), by bounds. Objects that could match both are kept apart by a property that one
requires: the other then leaves it out. What stays possible for both is refused. Pure functions.
"""

from __future__ import annotations

from typing import Protocol

from app.models.json_schemas.composites import object_of
from app.models.json_schemas.nodes import Node, refuse_unsupported
from app.models.json_schemas.scalars import fits, number_of, string_of, types_of
from app.models.json_schemas.shapes import Key, Number, Object, Scalar, String, conjunction, identity
from app.models.json_schemas.values import allowed_values

MAX_COMPARISONS = 20_000


class References(Protocol):
    """What a schema's references mean."""

    def glance(self, nodes: Key) -> Key:
        """``nodes`` with what they refer to and combine; choices among them are left alone."""


def exclusive(references: References, node: Node, options: list[list[Key]]) -> list[list[Key]]:
    """The alternatives of ``node``'s oneOf, each with what it must leave out. Raises where that is not enough."""
    if sum(map(len, options)) ** 2 > MAX_COMPARISONS:
        refuse_unsupported(node.at("oneOf"), "has too many alternatives to be kept apart")
    seen = [[(choice, references.glance((node, *choice))) for choice in option] for option in options]
    apart = [[_apart(references, node, i, choice, seen) for choice in option] for i, option in enumerate(seen)]
    return [[choice for choice in option if choice is not None] for option in apart]


def _apart(
    references: References, node: Node, at: int, own: tuple[Key, Key], options: list[list[tuple[Key, Key]]]
) -> Key | None:
    """A choice without the properties that would make it match another option too; None where it always would."""
    choice, mine = own
    forbidden: dict[str, None] = {}
    for j, option in enumerate(options):
        for _, theirs in option if j != at else ():
            if _needs(theirs) & forbidden.keys() or are_disjoint(references, mine, theirs):
                continue
            if (name := _telling(mine, theirs)) is not None:
                forbidden[name] = None
            elif _telling(theirs, mine) is not None:
                return None
            else:
                text = f"the alternatives {min(at, j)} and {max(at, j)} can match the same value"
                refuse_unsupported(node.at("oneOf"), f"{text}; use anyOf, or a property with a different const in each")
    if not forbidden:
        return choice
    place = f"{node.pointer}/oneOf#{at}-{'-'.join(forbidden)}"
    return conjunction([*choice, Node(place, {"properties": dict.fromkeys(forbidden, False)})])


def _telling(mine: Key, theirs: Key) -> str | None:
    """A property that only ``theirs`` requires, where both are objects and nothing else."""
    if types_of(mine) & types_of(theirs) != {"object"}:
        return None
    names = _needs(theirs) - _needs(mine)
    return min(names, default=None)


def _needs(nodes: Key) -> set[str]:
    return {name for node in nodes for name in node.keywords.get("required", ())}


def are_disjoint(references: References, one: Key, other: Key, depth: int = 3) -> bool:
    """Whether surely no value matches both; False where that cannot be told."""
    types = types_of(one) & types_of(other)
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not {identity(value) for value in values} & {identity(value) for value in others}
    if values is not None or others is not None:
        listed, nodes = (values, other) if values is not None else (others or [], one)
        return not any(_fits(value, nodes) for value in listed)
    return all(_is_apart(references, kind, one, other, depth) for kind in types)


def _values(nodes: Key) -> list[Scalar] | None:
    """The scalars that the nodes list; None where they list none, or others too."""
    for node in nodes:
        values = allowed_values(node)
        if values is not None and not any(isinstance(value, dict | list) for value in values):
            return values
    return None


def _fits(value: Scalar, nodes: Key) -> bool:
    types = types_of(nodes)
    number = number_of(nodes, is_integer="number" not in types)
    return fits(value, types, number, string_of(nodes), nodes[0].pointer if nodes else "")


def _is_apart(references: References, kind: str, one: Key, other: Key, depth: int) -> bool:
    match kind:
        case "integer" | "number":
            return _are_numbers_apart(number_of(one, is_integer=False), number_of(other, is_integer=False))
        case "string":
            return _are_lengths_apart(string_of(one), string_of(other))
        case "object":
            ours, theirs = object_of(one), object_of(other)
            return depth > 0 and (
                any(
                    are_disjoint(
                        references,
                        references.glance(ours.properties[name]),
                        references.glance(theirs.properties[name]),
                        depth - 1,
                    )
                    for name in ours.required & theirs.required
                )
                or _forbids(ours, theirs.required)
                or _forbids(theirs, ours.required)
            )
    return False


def _forbids(one: Object, names: frozenset[str]) -> bool:
    """Whether ``one`` leaves no room for one of ``names``."""
    is_closed = any(node.schema is False for node in one.rest) and not one.patterns
    for name in names:
        key = one.properties.get(name)
        if any(node.schema is False for node in key) if key is not None else is_closed:
            return True
    return False


def _are_numbers_apart(one: Number, other: Number) -> bool:
    for low, high in ((one, other), (other, one)):
        if low.maximum is not None and high.minimum is not None:
            if low.maximum < high.minimum:
                return True
            if low.maximum == high.minimum and (low.excludes_maximum or high.excludes_minimum):
                return True
    return False


def _are_lengths_apart(one: String, other: String) -> bool:
    return any(
        low.max_length is not None and low.max_length < high.min_length for low, high in ((one, other), (other, one))
    )
