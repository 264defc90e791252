"""The short functions whose lines the demo model learns by heart, as it learns the answers of its chat."""

import ast

from tools.demo_model.code import FunctionNode, definitions, without_docstring
from tools.demo_model.corpus import SourceFile
from tools.demo_model.infill import code_lines

MAX_CHARS = 400
MIN_LINES, MAX_LINES = 3, 10


def known_functions(files: list[SourceFile]) -> list[str]:
    """Public, documented functions and methods of the idiomatic packages, dedented and without docstring."""
    found: dict[str, None] = {}
    for file in files:
        if file.weight > 1:
            found |= dict.fromkeys(_short_functions(file.text))
    return list(found)


def _short_functions(text: str) -> list[str]:
    return [
        source
        for node, whole in definitions(text)
        if isinstance(node, FunctionNode) and not node.name.startswith("_") and ast.get_docstring(node)
        if node.col_offset == 0
        if _is_short(source := without_docstring(node, whole))
    ]


def _is_short(source: str) -> bool:
    return len(source) <= MAX_CHARS and MIN_LINES <= len(code_lines(source)) <= MAX_LINES
