"""Draws the evaluation prompts from files: function starts, line holes, documented names.

All draws come from a seed; knows text only, not the model.
"""

import ast
import random

from tools.demo_model.code import FunctionNode, FunctionStart, definitions, function_start
from tools.demo_model.corpus import SourceFile
from tools.demo_model.functions import known_functions
from tools.demo_model.infill import Hole, code_lines, line_hole, windowed

MIN_FUNCTION_LINES = 5
PREFIX_CHARS, SUFFIX_CHARS = 1000, 600


def draw_function_starts(files: list[SourceFile], count: int, seed: int) -> list[FunctionStart]:
    """One function start from each of `count` drawn files; each parses on its own."""
    rng = random.Random(f"functions-{seed}")
    found: list[FunctionStart] = []
    for file in rng.sample(files, len(files)):
        starts = [start for node, source in definitions(file.text) if (start := _long_start(node, source))]
        if starts and len(found) < count:
            found.append(rng.choice(starts))
    return found


def _long_start(node: ast.AST, source: str) -> FunctionStart | None:
    if not isinstance(node, FunctionNode) or source.count("\n") < MIN_FUNCTION_LINES or len(source) > 4000:
        return None
    start = function_start(node, source)
    return start if start and parses(start.prompt) and len(start.prompt) < 1000 else None


def draw_line_holes(files: list[SourceFile], count: int, seed: int) -> list[Hole]:
    """One single-line hole, its indentation left in place, from each of `count` drawn files."""
    rng = random.Random(f"holes-{seed}")
    holes: list[Hole] = []
    for file in rng.sample(files, len(files)):
        lines = code_lines(file.text)
        if lines and len(holes) < count:
            hole = line_hole(file.text, rng.choice(lines), keep_indent=True)
            holes.append(windowed(hole, prefix_chars=PREFIX_CHARS, suffix_chars=SUFFIX_CHARS))
    return holes


def draw_known_holes(files: list[SourceFile], count: int, seed: int) -> list[Hole]:
    """Single-line holes in drawn functions of those learned by heart, the signature not among them."""
    rng = random.Random(f"known-{seed}")
    known = known_functions(files)
    drawn = [rng.choice(known) for _ in range(count)]
    return [line_hole(text, rng.choice(code_lines(text)[1:]), keep_indent=True) for text in drawn]


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def whole_lines(completion: str) -> str:
    """The completion up to and with its last newline; nothing if it has none."""
    return completion[: completion.rfind("\n") + 1]


def first_line(completion: str) -> str:
    return completion.split("\n", 1)[0]
