"""Reads the Markdown pages: headings, links, and blocks with their class.

A block of commands says in a comment on the line before it what is done with it::

    <!-- block: run -->
    ```sh
    curl $U/livez
    ```

Used by the tests of the pages and by ``tools.follow_readme``; knows nothing of what blocks mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)\s*$")
_MARK = re.compile(r"^<!-- block: (?P<mark>.+?) -->$")
_HEADING = re.compile(r"^(#{1,6}) (.+?)\s*$")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^()\s]+)\)")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_DEFINITION = re.compile(r"^\[[^\]]+\]: (\S+)", re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+).+?\1")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``mark`` is its class, None where it has none. ``line`` counts from 1."""

    language: str
    text: str
    mark: str | None
    line: int

    @property
    def kind(self) -> str | None:
        """The first word of the mark."""
        return self.mark.split()[0] if self.mark else None

    @property
    def argument(self) -> str:
        """What follows the first word of the mark."""
        return self.mark.partition(" ")[2] if self.mark else ""


def blocks(text: str) -> list[Block]:
    """All fenced blocks, in order. Raises ``ValueError`` for a block without an end or a mark without a block."""
    found: list[Block] = []
    lines = text.splitlines()
    number, mark = 0, None
    while number < len(lines):
        line = lines[number]
        if opening := _FENCE.match(line):
            end = _end_of_block(lines, number)
            body = "\n".join(row.removeprefix(opening["indent"]) for row in lines[number + 1 : end])
            found.append(Block(opening["language"], body + "\n", mark, number + 1))
            number, mark = end, None
        elif mark is not None:
            raise ValueError(f"line {number}: no block follows the mark {mark!r}")
        elif marked := _MARK.match(line):
            mark = marked["mark"]
        number += 1
    if mark is not None:
        raise ValueError(f"line {number}: no block follows the mark {mark!r}")
    return found


def _end_of_block(lines: list[str], start: int) -> int:
    for number in range(start + 1, len(lines)):
        if lines[number].strip() == "```":
            return number
    raise ValueError(f"line {start + 1}: the block has no end")


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    kept, inside = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def headings(text: str) -> list[tuple[int, str]]:
    """Level and text of each heading."""
    return [(len(match[1]), match[2]) for line in prose(text).splitlines() if (match := _HEADING.match(line))]


def anchors(text: str) -> set[str]:
    """The fragments that GitHub makes of the headings; a repeated one gets a number."""
    seen: dict[str, int] = {}
    found = set()
    for _, heading in headings(text):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        anchor = words.replace(" ", "-")
        count = seen.get(anchor, 0)
        found.add(f"{anchor}-{count}" if count else anchor)
        seen[anchor] = count + 1
    return found


def links(text: str) -> list[str]:
    """Targets of all links and images outside code."""
    bare = _CODE_SPAN.sub("", prose(text))
    without_images = _IMAGE.sub("", bare)
    return [*_IMAGE.findall(bare), *_LINK.findall(without_images), *_DEFINITION.findall(bare)]


def markdown_files() -> list[Path]:
    """Every page of the repository that is written by hand or by its tools."""
    outside = {".venv", "build", "dist", "node_modules"}
    found = (path for path in REPOSITORY.rglob("*.md") if not path.relative_to(REPOSITORY).parts[0].startswith("."))
    return sorted(path for path in found if not outside & set(path.relative_to(REPOSITORY).parts))
