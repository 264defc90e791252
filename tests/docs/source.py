"""What the code can say to an operator: start failures and log events, read from its syntax trees."""

from __future__ import annotations

import ast
import gc
import importlib
from functools import cache
from pathlib import Path

from app.core import errors
from tools.pages import REPOSITORY

SHORTEST_FRAGMENT = 8


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    paths = sorted((REPOSITORY / "app").rglob("*.py"))
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    # None of it is garbage, which the collector would look for again and again: two thirds of the time.
    gc.disable()
    try:
        return [(path, node) for path, tree in trees() for node in ast.walk(tree)]
    finally:
        gc.enable()


def forget() -> None:
    """The trees have 400,000 nodes, through which each later collection of the process would walk: half a second."""
    nodes.cache_clear()
    trees.cache_clear()


@cache
def start_failures() -> dict[str, list[str]]:
    """Where a ``StartError`` is raised, and the fixed parts of its text."""
    kinds = {"StartError"} | {kind.__name__ for kind in descendants(errors.StartError)}
    found = {}
    for path, node in nodes():
        if isinstance(node, ast.Call) and called_name(node) in kinds and node.args:
            fragments = fixed_parts(node.args[0])
            if fragments:
                found[f"{path.relative_to(REPOSITORY)}:{node.lineno}"] = fragments
    return found


def texts() -> list[str]:
    """Every string of the code, f-strings in pieces."""
    constants = (node for _, node in nodes() if isinstance(node, ast.Constant))
    return [node.value for node in constants if isinstance(node.value, str)]


def log_events(*levels: str) -> set[str]:
    """Names of the events that are logged at one of these levels."""
    return {
        node.args[0].value
        for _, node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in levels
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and isinstance(node.args[0], ast.Constant)
    }


def error_codes() -> set[str]:
    """Codes that a caller can see: of classes that are leaves or made by name, those below HTTP included."""
    importlib.import_module("app.serve.incoming.error_answers")
    made = {called_name(node) for _, node in nodes() if isinstance(node, ast.Call)}
    kinds = descendants(errors.RequestError)
    return {kind.code for kind in kinds if not kind.__subclasses__() or kind.__name__ in made}


def descendants(kind: type) -> set[type]:
    return {kind for child in kind.__subclasses__() for kind in (child, *descendants(child))}


def called_name(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def fixed_parts(text: ast.expr) -> list[str]:
    """The constant parts of a string or an f-string that are long enough to find again."""
    nodes = text.values if isinstance(text, ast.JoinedStr) else [text]
    parts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [part.strip(" :;,.(") for part in parts if len(part.strip(" :;,.(")) >= SHORTEST_FRAGMENT]
