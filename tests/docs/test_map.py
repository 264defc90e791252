"""The map of the code is complete, and the pages that lead to files name files that exist."""

from __future__ import annotations

import re

import pytest

from tools.architecture_map import PACKAGES, PAGE, section, written
from tools.pages import REPOSITORY

PAGES = ("architecture", "where-to-change", "contributing")


def test_the_map_is_that_of_the_files():
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run python -m tools.architecture_map"


def test_the_map_has_every_file_once():
    folders = dict(re.findall(r"^### `(app/\S+)`\n(.*?)(?=^###|\Z)", section(), re.MULTILINE | re.DOTALL))
    listed = [
        f"{folder}/{name}" for folder, text in folders.items() for name in re.findall(r"^- `(\S+)`: \S", text, re.M)
    ]
    files = [path for package in PACKAGES for path in (REPOSITORY / "app" / package).rglob("*.py")]
    assert sorted(listed) == sorted(str(p.relative_to(REPOSITORY)) for p in files if p.stem != "__init__")


@pytest.mark.parametrize("name", PAGES)
def test_every_file_that_a_page_names_is_there(name):
    text = (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8").partition("\n## Map\n")[0]
    named = set(re.findall(r"`([\w/.]+\.py)`", text))
    files = [f"/{path.relative_to(REPOSITORY)}" for path in REPOSITORY.glob("*.py")]
    files += [
        f"/{path.relative_to(REPOSITORY)}"
        for top in ("app", "tests", "tools")
        for path in (REPOSITORY / top).rglob("*.py")
    ]
    assert named
    assert not [one for one in named if not any(path.endswith(f"/{one}") for path in files)]
