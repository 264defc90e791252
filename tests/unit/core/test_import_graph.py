"""Imports go in no circle, also not those that only the type checker sees, and the engine has few floors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.imports import imports_of

APP = Path(__file__).resolve().parents[3] / "app"
MOST_FLOORS_OF_THE_ENGINE = 8

Graph = dict[str, set[str]]


def graph_of(root: Path) -> Graph:
    """Which of its own modules each module below ``root`` imports, under ``TYPE_CHECKING`` and in functions, too."""
    paths = {".".join(path.relative_to(root.parent).with_suffix("").parts): path for path in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: imports_of(path) & set(modules) - {name} for name, path in modules.items()}


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one module (Kosaraju)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, edges: Graph, into: list[str]) -> None:
        seen.add(name)
        for other in sorted(edges[name] - seen):
            if other not in seen:
                visit(other, edges, into)
        into.append(name)

    for name in sorted(graph):
        if name not in seen:
            visit(name, graph, order)
    backwards = {name: {other for other in graph if name in graph[other]} for name in graph}
    seen.clear()
    found: list[list[str]] = []
    for name in reversed(order):
        if name not in seen:
            found.append([])
            visit(name, backwards, found[-1])
    return [sorted(one) for one in found if len(one) > 1]


def longest_chain(graph: Graph) -> list[str]:
    """Of a graph without circles: each module imports the next one."""

    @cache
    def below(name: str) -> tuple[str, ...]:
        return (name, *max((below(other) for other in sorted(graph[name])), key=len, default=()))

    return list(max(map(below, sorted(graph)), key=len))


def within(graph: Graph, prefix: str) -> Graph:
    return {
        name: {one for one in edges if one.startswith(prefix)}
        for name, edges in graph.items()
        if name.startswith(prefix)
    }


def test_no_imports_go_in_a_circle():
    assert circles(graph_of(APP)) == []


def test_the_engine_has_few_floors():
    chain = longest_chain(within(graph_of(APP), "app.engine."))
    assert len(chain) <= MOST_FLOORS_OF_THE_ENGINE, " -> ".join(chain)


def test_a_circle_and_a_chain_are_found():
    graph: Graph = {"a": {"b"}, "b": {"c", "e"}, "c": {"b"}, "d": {"a"}, "e": set()}
    assert circles(graph) == [["b", "c"]]
    assert longest_chain({**graph, "c": set()}) == ["d", "a", "b", "c"]
