"""What several nodes allow together among arrays and objects. Pure functions."""

from __future__ import annotations

from typing import Any

from app.models.json_schemas.nodes import ANNOTATIONS, Node, refuse_unsupported, shown
from app.models.json_schemas.patterns import check_cost, is_endless, matches, names_of
from app.models.json_schemas.shapes import Array, Key, Object, conjunction, least
from app.models.json_schemas.values import allowed_values


def array_of(nodes: Key) -> Array:
    """The arrays that all nodes allow."""
    length, low, high = 0, 0, None
    for node in nodes:
        low, high = max(low, int(node.keywords.get("minItems", 0))), least(high, node.keywords.get("maxItems"))
        length = max(length, len(_listed(node)[1]))
    prefix = tuple(conjunction(_item(node, i) for node in nodes) for i in range(length))
    return Array(prefix, conjunction(_item(node, length) for node in nodes), low, high)


def _listed(node: Node) -> tuple[str, list[Any], str]:
    """Items by position, with their keyword and that of the items behind them; up to draft 2019 both differ."""
    if isinstance(node.keywords.get("items"), list):
        return "items", node.keywords["items"], "additionalItems"
    return "prefixItems", node.keywords.get("prefixItems", []), "items"


def _item(node: Node, at: int) -> Node | None:
    keyword, first, rest = _listed(node)
    if at < len(first):
        return Node(node.at(keyword, at), first[at])
    return Node(node.at(rest), node.keywords[rest]) if rest in node.keywords else None


def object_of(nodes: Key) -> Object:
    """The objects that all nodes allow."""
    members = [Member(node) for node in nodes]
    names: dict[str, None] = {}
    required: dict[str, None] = {}
    low, high = 0, None
    for member in members:
        words = member.node.keywords
        names |= dict.fromkeys([*words.get("properties", ()), *member.names])
        required |= dict.fromkeys(words.get("required", ()))
        low, high = max(low, int(words.get("minProperties", 0))), least(high, words.get("maxProperties"))
    properties = {
        name: conjunction(part for member in members for part in member.named(name)) for name in (names | required)
    }
    patterns, rest = _others(members)
    return Object(nodes[0].pointer, properties, frozenset(required), patterns, rest, low, high)


class Member:
    """One node of a conjunction, asked what it says of a property.

    ``names`` are those that patterns and ``propertyNames`` list; ``open_patterns`` allow names without end.
    """

    def __init__(self, node: Node):
        self.node = node
        self.names: list[str] = []
        self.open_patterns: dict[str, Node] = {}
        self.rest: Node | None = None
        self._patterns: dict[str, Node] = {}
        self._only: frozenset[str] | None = None
        words = node.keywords
        if "additionalProperties" in words:
            self.rest = Node(node.at("additionalProperties"), words["additionalProperties"])
        for pattern, schema in words.get("patternProperties", {}).items():
            self._add(pattern, Node(node.at("patternProperties", pattern), schema))
        if "propertyNames" in words:
            self._read_names(Node(node.at("propertyNames"), words["propertyNames"]))

    def named(self, name: str) -> list[Node | None]:
        """What the node says of the property ``name``."""
        if self._only is not None and name not in self._only:
            return [Node(self.node.at("propertyNames"), False)]
        found: list[Node | None] = []
        if name in self.node.keywords.get("properties", {}):
            found.append(Node(self.node.at("properties", name), self.node.keywords["properties"][name]))
        found += [node for pattern, node in self._patterns.items() if matches(pattern, name, node.pointer)]
        return found or [self.rest]

    def _add(self, pattern: str, node: Node) -> None:
        """A pattern of few names becomes those names: while one is written, another must always be left."""
        check_cost(pattern, node.pointer)
        self._patterns[pattern] = node
        if is_endless(pattern):
            self.open_patterns[pattern] = node
        elif (names := names_of(pattern)) is not None:
            self.names += names
        else:
            refuse_unsupported(node.pointer, "a pattern for names must allow names of any length, or be as ^(a|b)$")

    def _read_names(self, node: Node) -> None:
        """``propertyNames``, as far as it lists them, gives one pattern for them, or says that they are strings."""
        words = {word: value for word, value in node.keywords.items() if word not in (*ANNOTATIONS, "type")}
        if node.schema is not False and node.keywords.get("type", "string") == "string":
            if not words:
                return
            if words.keys() <= {"enum", "const"} and (values := allowed_values(node)) is not None:
                self.names += [value for value in values if isinstance(value, str)]
                self._only = frozenset(value for value in values if isinstance(value, str))
                self.open_patterns = {}
                self.rest = self.rest or Node(node.at("enum"), True)
                return
            if words.keys() == {"pattern"} and isinstance(words["pattern"], str) and not self._patterns:
                self._add(words["pattern"], self.rest or Node(node.at("pattern"), True))
                self._refuse_unmatched(words["pattern"], node)
                self.rest = Node(node.pointer, False)
                return
        refuse_unsupported(node.pointer, "is supported as enum, const, one pattern, or type string")

    def _refuse_unmatched(self, pattern: str, node: Node) -> None:
        for name in self.node.keywords.get("properties", {}):
            if not matches(pattern, name, node.pointer):
                refuse_unsupported(node.pointer, f"forbids the property {shown(name, 40)!r} that the schema describes")

    @property
    def others(self) -> Node | None:
        """What the node says of names that it does not list; they are none where ``propertyNames`` lists all."""
        return self.rest if self._only is None else Node(self.node.at("propertyNames"), False)


def _others(members: list[Member]) -> tuple[dict[str, Key], Key]:
    """Names that are no property: by pattern, and the rest."""
    with_patterns = [member for member in members if member.open_patterns]
    if len(with_patterns) > 1:
        place = with_patterns[1].node.at("patternProperties")
        refuse_unsupported(place, "patterns for names in two schemas that hold together are not supported")
    patterns: dict[str, Key] = {}
    for member in with_patterns:
        others = [other.others for other in members if other is not member]
        patterns = {pattern: conjunction([node, *others]) for pattern, node in member.open_patterns.items()}
    return patterns, conjunction(member.others for member in members)
