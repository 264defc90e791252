"""What a module imports, read from its syntax tree: each file is parsed once per process."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def imports_of(path: Path, *, at_run_time: bool = False) -> frozenset[str]:
    """Modules, and with each what is taken from it; at run time without what stands under ``if TYPE_CHECKING``."""
    found: set[str] = set()
    for node in statements_of(ast.parse(path.read_text(encoding="utf-8")), at_run_time):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def statements_of(tree: ast.AST, at_run_time: bool) -> Iterator[ast.AST]:
    """All that may hold an import; expressions cannot."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):
            continue
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if is_typing and at_run_time:
            continue
        yield node
        yield from statements_of(node, at_run_time)
