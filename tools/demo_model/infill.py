"""Makes fill-in-the-middle samples in the prefix-suffix-middle form of Qwen2.5-Coder.

Holes are cut on characters, before tokenizing, so that the token boundaries
seen in training are those of a request.
"""

import random
from dataclasses import dataclass

MAX_SPAN_CHARS = 240


@dataclass(frozen=True)
class Hole:
    """A text with a part taken out: `prefix + middle + suffix` is the original."""

    prefix: str
    suffix: str
    middle: str

    def prompt(self) -> str:
        return f"<|fim_prefix|>{self.prefix}<|fim_suffix|>{self.suffix}<|fim_middle|>"


def line_hole(text: str, line: int, *, keep_indent: bool) -> Hole:
    """Take out one whole line without its newline; `keep_indent` leaves its indentation in the prefix."""
    lines = text.splitlines(keepends=True)
    start = sum(map(len, lines[:line]))
    body = lines[line].rstrip("\n")
    if keep_indent:
        start += len(body) - len(body.lstrip())
        body = body.lstrip()
    return Hole(text[:start], text[start + len(body) :], body)


def code_lines(text: str, *, min_chars: int = 4) -> list[int]:
    """The indexes of lines that say something: not blank, not a comment, not closing brackets only."""
    return [
        index
        for index, line in enumerate(text.splitlines())
        if len(line.strip()) >= min_chars and not line.lstrip().startswith("#")
    ]


def span_hole(text: str, start: int, end: int) -> Hole:
    return Hole(text[:start], text[end:], text[start:end])


def random_hole(text: str, rng: random.Random) -> Hole | None:
    """Half the time a whole line, else a line's end, a run of lines or a random span."""
    lines = code_lines(text)
    if not lines:
        return None
    line = rng.choice(lines)
    draw = rng.random()
    if draw < 0.5:
        return line_hole(text, line, keep_indent=rng.random() < 0.7)
    whole = line_hole(text, line, keep_indent=True)
    start, end = len(whole.prefix), len(whole.prefix) + len(whole.middle)
    if draw < 0.7:
        return span_hole(text, rng.randint(start, end - 1), end)
    if draw < 0.82:
        wanted = start + rng.randint(1, MAX_SPAN_CHARS)
        newline = text.find("\n", wanted)
        return span_hole(text, start, newline if 0 <= newline <= start + 2 * MAX_SPAN_CHARS else end)
    first = rng.randint(0, len(text) - 1)
    return span_hole(text, first, min(len(text), first + rng.randint(1, MAX_SPAN_CHARS)))


def windowed(hole: Hole, *, prefix_chars: int, suffix_chars: int) -> Hole:
    """Shorten the context to whole lines within the given numbers of characters."""
    prefix, suffix = hole.prefix[-prefix_chars:], hole.suffix[:suffix_chars]
    if len(prefix) < len(hole.prefix):
        prefix = prefix[prefix.find("\n") + 1 :]
    if len(suffix) < len(hole.suffix):
        suffix = suffix[: suffix.rfind("\n") + 1]
    return Hole(prefix, suffix, hole.middle)
