"""No link of any page leads nowhere. Addresses outside the repository are checked for their form only."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tools.pages import REPOSITORY, anchors, blocks, links, markdown_files

FILES = markdown_files()


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def problem_of(page: Path, target: str) -> str | None:
    """What is wrong with a link, None where nothing is."""
    url = urlsplit(target)
    if url.scheme:
        return None if url.scheme == "https" and "." in url.netloc else "not a whole https address"
    if target.startswith("/"):
        return "not relative"
    file = (page.parent / unquote(url.path)).resolve() if url.path else page
    if not file.is_relative_to(REPOSITORY) or not file.exists():
        return "no such file"
    if not url.fragment:
        return None
    is_there = file.suffix == ".md" and unquote(url.fragment) in anchors(file.read_text(encoding="utf-8"))
    return None if is_there else "no such heading"


@pytest.mark.parametrize("page", FILES, ids=name_of)
def test_no_link_leads_nowhere(page):
    problems = {target: problem_of(page, target) for target in links(page.read_text(encoding="utf-8"))}
    assert not {target: problem for target, problem in problems.items() if problem}


@pytest.mark.parametrize("page", FILES, ids=name_of)
def test_every_block_of_every_page_ends(page):
    blocks(page.read_text(encoding="utf-8"))


def test_the_pages_that_everyone_looks_for_are_among_them():
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= {name_of(page) for page in FILES}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("docs/api.md", None),
        ("docs/nowhere.md", "no such file"),
        ("../outside", "no such file"),
        ("/docs/api.md", "not relative"),
        ("docs/api.md#what-holds-for-every-route", None),
        ("docs/api.md#nothing", "no such heading"),
        ("Makefile#run", "no such heading"),
        ("http://example.org/", "not a whole https address"),
        ("https://", "not a whole https address"),
        ("https://docs.python.org/3/", None),
    ],
)
def test_dead_links_are_noticed(target, problem):
    assert problem_of(REPOSITORY / "README.md", target) == problem


def test_links_in_code_are_no_links_and_images_within_links_are():
    text = "`[a](b)` [![c](d.png)](e.md) [`f`](h.md)\n\n```text\n[i](j)\n```\n[k]: l.md\n"
    assert links(text) == ["d.png", "e.md", "h.md", "l.md"]


def test_anchors_are_github_s():
    text = "# What stops a start\n## `POST /complete` (*chat*)\n## Twice\n## Twice\n## 1. Start\n"
    assert anchors(text) == {"what-stops-a-start", "post-complete-chat", "twice", "twice-1", "1-start"}
