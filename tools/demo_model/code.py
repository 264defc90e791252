"""Cuts Python source into training pieces: chunks, functions, commented functions.

Pure functions on text; knows nothing of tokens.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
DefinitionNode = FunctionNode | ast.ClassDef

_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|a\.k\.a)\.$", re.IGNORECASE)


@dataclass(frozen=True)
class FunctionStart:
    """A dedented function: the text a completion starts from, and the rest of its body."""

    prompt: str
    rest: str


def parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring's first paragraph on one line, or "" if there is none."""
    paragraph = textwrap.dedent(docstring).strip().split("\n\n", 1)[0]
    words = " ".join(paragraph.split())
    for match in re.finditer(r"[.!?](?=\s|$)", words):
        candidate = words[: match.end()]
        if not _ABBREVIATION.search(candidate):
            return candidate
    return ""


def chunks(text: str, max_chars: int) -> list[str]:
    """Cut a file before top-level statements (with their comments) into pieces of about `max_chars`.

    A single statement longer than that becomes a piece of its own, however long.
    """
    lines = text.splitlines(keepends=True)
    pieces: list[str] = []
    current: list[str] = []
    for block in _top_level_blocks(lines, text):
        size = sum(map(len, current))
        if current and size + sum(map(len, block)) > max_chars:
            pieces.append("".join(current))
            current = []
        current = current + block
    pieces.append("".join(current))
    return [piece.strip("\n") + "\n" for piece in pieces if piece.strip()]


def _top_level_blocks(lines: list[str], text: str) -> Iterator[list[str]]:
    starts = [_block_start(lines, node) for node in parse(text).body]
    bounds = [0, *(start for start in starts if start > 0), len(lines)]
    for begin, end in pairwise(bounds):
        if end > begin:
            yield lines[begin:end]


def _block_start(lines: list[str], node: ast.stmt) -> int:
    """The index of the first line of a statement, its decorators and the comments just above."""
    decorators = node.decorator_list if isinstance(node, DefinitionNode) else []
    start = min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    while start > 0 and lines[start - 1].startswith("#"):
        start -= 1
    return start


def definitions(text: str) -> Iterator[tuple[DefinitionNode, str]]:
    """Yield every function, method and class with its dedented source, decorators left out."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(parse(text)):
        if isinstance(node, DefinitionNode) and node.end_lineno is not None:
            source = "".join(lines[node.lineno - 1 : node.end_lineno])
            yield node, textwrap.dedent(source).rstrip("\n") + "\n"


def spoken_name(name: str) -> str:
    """An identifier as words: `_splitExt_drive` -> "split ext drive"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.strip("_")).replace("_", " ")
    return " ".join(words.lower().split())


def without_docstring(node: DefinitionNode, source: str) -> str:
    """The dedented source less its docstring; unchanged if nothing else would be left."""
    if ast.get_docstring(node) is None or len(node.body) < 2:
        return source
    doc = node.body[0]
    if doc.end_lineno is None or doc.lineno == node.lineno or node.body[1].lineno == doc.end_lineno:
        return source
    lines = source.splitlines(keepends=True)
    rest = lines[doc.end_lineno - node.lineno + 1 :]
    while rest and not rest[0].strip():
        rest = rest[1:]
    return "".join(lines[: doc.lineno - node.lineno] + rest)


def comment_above(node: DefinitionNode, source: str, *, style: str = "# ") -> str:
    """The definition with its docstring's first sentence, or its name in words, as a comment above."""
    sentence = first_sentence(ast.get_docstring(node) or "")
    comment = sentence or spoken_name(node.name)
    return f"{style}{comment}\n{without_docstring(node, source)}"


def function_start(node: FunctionNode, source: str) -> FunctionStart | None:
    """Split a dedented function after its first body statement, or None if nothing follows.

    The statement is the docstring where there is one, else the first line of
    the body when that is a whole statement.
    """
    first = node.body[0]
    if len(node.body) < 2 or first.end_lineno is None or first.lineno == node.lineno:
        return None
    if hasattr(first, "body") or node.body[1].lineno == first.end_lineno:
        return None
    lines = source.splitlines(keepends=True)
    cut = first.end_lineno - node.lineno + 1
    return FunctionStart("".join(lines[:cut]), "".join(lines[cut:]))
