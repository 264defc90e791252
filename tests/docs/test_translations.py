"""The Chinese pages say what the English ones say: same structure, same commands, same answers."""

from __future__ import annotations

import re

import pytest

from tools.pages import REPOSITORY, blocks, headings, links

PAIRS = [("README.md", "README.zh-CN.md"), ("docs/quick-start.md", "docs/zh-CN/quick-start.md")]


def both(pair: tuple[str, str]) -> tuple[str, str]:
    english, chinese = ((REPOSITORY / page).read_text(encoding="utf-8") for page in pair)
    return english, chinese


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1])
def test_the_blocks_are_the_same(pair):
    english, chinese = map(blocks, both(pair))
    assert [(block.mark, block.language, block.text) for block in chinese] == [
        (block.mark, block.language, block.text) for block in english
    ]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1])
def test_the_headings_have_the_same_levels(pair):
    english, chinese = map(headings, both(pair))
    assert [level for level, _ in chinese] == [level for level, _ in english]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1])
def test_every_page_that_one_links_the_other_links(pair):
    english, chinese = both(pair)
    assert {file_name(target) for target in links(chinese)} == {file_name(target) for target in links(english)}


def file_name(target: str) -> str:
    """The target without its folder, its heading and its language."""
    path = target.partition("#")[0]
    return path if "//" in path else path.rpartition("/")[2].replace(".zh-CN", "")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1])
def test_no_figure_is_lost(pair):
    """There may be more: Chinese counts in units of ten thousand."""
    english, chinese = (set(re.findall(r"\d+(?:\.\d+)?%?", text)) for text in both(pair))
    assert english <= chinese
