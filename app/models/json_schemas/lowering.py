"""From the nodes of a schema to what each allows: references followed, conjunctions made, choices laid out.

One ``Reading`` reads one schema. Definitions are made per set of nodes that hold together, so that
recursive schemas come to an end. HTTP threads; the number of steps is bounded.
"""

from __future__ import annotations

from typing import Any

from app.models.json_schemas.choices import exclusive
from app.models.json_schemas.composites import array_of, object_of
from app.models.json_schemas.nodes import ANNOTATIONS, MAX_NODES, Node, check_node, refuse, refuse_cost, resolve
from app.models.json_schemas.scalars import literals_of, number_of, string_of, types_of
from app.models.json_schemas.shapes import Alternative, Anything, Key, Literals
from app.models.json_schemas.values import allowed_values, exactly

MAX_NAMES_DEPTH = 20
MAX_STEPS = 20_000
MAX_ALTERNATIVES = 1000
MAX_DEFINITIONS = 4000
_ELSEWHERE = ANNOTATIONS | {"$ref", "allOf", "anyOf", "oneOf", "const", "enum", "nullable"}


class Reading:
    """The definitions of one schema, made as they are asked for."""

    def __init__(self, schema: Any):
        self.root = Node("", schema)
        self._definitions: dict[Key, list[Alternative]] = {}
        self._conjunctions: dict[Key, list[Key]] = {}
        self._expanded: dict[str, list[Key]] = {}
        self._checked: set[str] = set()
        self._steps = 0

    def definition(self, key: Key) -> list[Alternative]:
        """What the nodes of ``key`` allow together."""
        if key not in self._definitions:
            if len(self._definitions) >= MAX_DEFINITIONS:
                refuse_cost(key[0].pointer if key else "", "the schema unfolds into too many parts")
            self._definitions[key] = [
                one for conjunction in self.conjunctions(key) for one in self._alternatives(conjunction)
            ]
        return self._definitions[key]

    def conjunctions(self, key: Key) -> list[Key]:
        """The choices of ``key``, each as nodes whose own keywords hold together."""
        if key not in self._conjunctions:
            found: list[Key] = [()]
            for node in key:
                found = self._both(found, self._expand(node, frozenset()), node)
            self._conjunctions[key] = found
        return self._conjunctions[key]

    def _expand(self, node: Node, above: frozenset[str]) -> list[Key]:
        """``node`` with what it refers to; one that leads back to itself says nothing of any value."""
        self._count(node)
        if node.pointer in self._expanded:
            return self._expanded[node.pointer]
        if node.pointer in above:
            refuse(node.pointer, "leads back to itself before any value is reached")
        found = self._combined(node, above | {node.pointer}) if isinstance(node.schema, dict) else _plain(node)
        self._expanded[node.pointer] = found
        return found

    def _combined(self, node: Node, above: frozenset[str]) -> list[Key]:
        node = self._with_names(node)
        found: list[Key] = [(node,) if _asserts(node) else ()]
        if (reference := node.keywords.get("$ref")) is not None:
            target = resolve(self.root, reference, node.at("$ref"))
            found = self._both(found, self._expand(target, above), node)
        for i, part in enumerate(node.keywords.get("allOf", ())):
            found = self._both(found, self._expand(Node(node.at("allOf", i), part), above), node)
        for keyword in ("anyOf", "oneOf"):
            if keyword in node.keywords:
                options = [
                    self._expand(Node(node.at(keyword, i), part), above)
                    for i, part in enumerate(node.keywords[keyword])
                ]
                if keyword == "oneOf":
                    options = exclusive(self, node, options)
                found = self._both(found, [choice for option in options for choice in option], node)
        return self._both(found, self._values(node), node)

    def _with_names(self, node: Node) -> Node:
        """``node`` with what its ``propertyNames`` refer to in their place."""
        if "propertyNames" not in node.keywords:
            return node
        names = Node(node.at("propertyNames"), node.keywords["propertyNames"])
        for _ in range(MAX_NAMES_DEPTH):
            self._count(names)
            if "$ref" not in names.keywords:
                break
            names = resolve(self.root, names.keywords["$ref"], node.at("propertyNames", "$ref"))
        else:
            refuse(node.at("propertyNames"), "refers to itself without end")
        return Node(node.pointer, {**node.keywords, "propertyNames": names.schema})

    def _values(self, node: Node) -> list[Key]:
        """``const`` and ``enum``: scalars as one node, each object and array as one of its own."""
        values = allowed_values(node)
        if values is None:
            return [()]
        composed = [(i, value) for i, value in enumerate(values) if isinstance(value, dict | list)]
        choices: list[Key] = [(Node(f"{node.pointer}/enum#{i}", exactly(value)),) for i, value in composed]
        if len(composed) < len(values):
            scalars = [value for value in values if not isinstance(value, dict | list)]
            choices.append((Scalars(f"{node.pointer}/enum#", {"enum": scalars}),))
        for [choice] in choices:
            self._count(choice)
        return choices

    def _both(self, ones: list[Key], others: list[Key], node: Node) -> list[Key]:
        if len(ones) * len(others) > MAX_ALTERNATIVES:
            refuse_cost(node.pointer, f"the schema combines to more than {MAX_ALTERNATIVES} alternatives here")
        return list(dict.fromkeys(tuple(dict.fromkeys((*one, *other))) for one in ones for other in others))

    def _count(self, node: Node) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            refuse_cost(node.pointer, "the schema takes too many steps to read")
        if node.pointer not in self._checked:
            self._checked.add(node.pointer)
            check_node(node)
            if len(self._checked) > MAX_NODES:
                refuse_cost("", f"the schema has more than {MAX_NODES} nodes")

    def _alternatives(self, nodes: Key) -> list[Alternative]:
        """What nodes without references and choices allow together, one alternative per kind of value."""
        if not nodes:
            return [Anything()]
        types = types_of(nodes)
        if listed := [node for node in nodes if isinstance(node, Scalars)]:
            return [literals_of(nodes, listed, types)]
        found: list[Alternative] = []
        if "null" in types:
            found.append(Literals((None,)))
        if "boolean" in types:
            found.append(Literals((True, False)))
        if types & {"integer", "number"}:
            found.append(number_of(nodes, is_integer="number" not in types))
        if "string" in types:
            found.append(string_of(nodes))
        if "array" in types:
            found.append(array_of(nodes))
        if "object" in types:
            found.append(object_of(nodes))
        return found

    def glance(self, nodes: Key) -> Key:
        """``nodes`` with what they refer to and combine; choices among them are left alone."""
        found: dict[Node, None] = {}
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            self._count(node)
            if node in found:
                continue
            found[node] = None
            if (reference := node.keywords.get("$ref")) is not None:
                waiting.append(resolve(self.root, reference, node.at("$ref")))
            waiting += [Node(node.at("allOf", i), part) for i, part in enumerate(node.keywords.get("allOf", ()))]
        return tuple(found)


def _plain(node: Node) -> list[Key]:
    return [()] if node.schema is True else []


class Scalars(Node):
    """The scalars among the values that ``const`` and ``enum`` leave."""


def _asserts(node: Node) -> bool:
    """Whether the node says something of a value by itself."""
    return any(word not in _ELSEWHERE and not word.startswith("x-") for word in node.keywords)
