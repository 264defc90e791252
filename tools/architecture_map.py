"""Writes the map in docs/architecture.md from the modules' first sentences; a test checks that it is up to date.

Run as ``python -m tools.architecture_map``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tools.pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
PACKAGES = ("core", "serve", "models", "engine", "http", "rpc", "cluster", "reports", "cli")
HEAD = """## Map

Every file with its first sentence, folder by folder. `python -m tools.architecture_map` writes this section.
"""


def written(page: str) -> str:
    """The page with its map as the files have it now."""
    before, rest = page.split("\n## Map\n")
    after = rest.partition("\n## ")[2]
    return f"{before}\n{section()}" + (f"\n## {after}" if after else "")


def section() -> str:
    """The whole map."""
    folders = [folder for package in PACKAGES for folder in _folders(REPOSITORY / "app" / package)]
    return "\n".join([HEAD, *map(_folder_lines, folders)])


def _folders(top: Path) -> list[Path]:
    return sorted({path.parent for path in top.rglob("*.py")})


def _folder_lines(folder: Path) -> str:
    place = folder.relative_to(REPOSITORY)
    files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
    lines = [f"- `{path.name}`: {first_sentence(path)}" for path in files]
    return "\n".join([f"### `{place}`", "", first_sentence(folder / "__init__.py"), "", *lines, ""])


def first_sentence(path: Path) -> str:
    """What the file says of itself, up to its first full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=\.)\s(?=[A-Z])", paragraph, maxsplit=1)[0]
    return sentence.rstrip(":.").replace("``", "`") + "."


def main() -> None:
    """Write the page."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
