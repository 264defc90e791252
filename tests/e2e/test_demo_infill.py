"""Infilling by the embedded demo model: missing lines of functions that it knows by heart, over HTTP."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tools.demo_model.code import definitions, without_docstring
from tools.demo_model.infill import Hole, code_lines, line_hole

pytestmark = pytest.mark.slow

# Measured: 37 of 63.
MIN_SHARE = 0.4
FUNCTIONS = (
    "bisect.insort_right",
    "calendar.leapdays",
    "fnmatch.fnmatch",
    "heapq.heappushpop",
    "html.escape",
    "inspect.isawaitable",
    "linecache.getline",
    "secrets.token_bytes",
    "shutil.copy",
    "statistics.median_low",
    "statistics.median_high",
    "textwrap.shorten",
    "textwrap.wrap",
    "urllib.parse.unquote_plus",
    "uuid.uuid3",
)


def holes_of(name: str) -> list[Hole]:
    """Each line of a function's body as a hole behind its indentation; the docstring is left out."""
    module, _, function = name.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    node, text = next(found for found in definitions(source) if found[0].name == function)
    text = without_docstring(node, text)
    return [line_hole(text, line, keep_indent=True) for line in code_lines(text)[1:]]


@pytest.fixture(scope="module")
def holes():
    return [hole for name in FUNCTIONS for hole in holes_of(name)]


def test_single_line_holes_are_filled_and_end_by_themselves(demo, holes):
    answers = [demo.post("/infill", json={"prefix": hole.prefix, "suffix": hole.suffix}).json() for hole in holes]
    filled = [answer["infills"] == [hole.middle] for answer, hole in zip(answers, holes, strict=True)]
    print(f"{sum(filled)} of {len(holes)} holes")
    assert sum(filled) >= MIN_SHARE * len(holes)
    for answer, hole, is_filled in zip(answers, holes, filled, strict=True):
        if is_filled:
            assert answer["text"] == hole.prefix + hole.middle + hole.suffix
            assert answer["finish_reason"] == "stop"


def test_a_suffix_in_openais_form_fills_the_same_line(demo, holes):
    for hole in holes[::8]:
        body = {"prompt": hole.prefix, "suffix": hole.suffix, "temperature": 0, "max_tokens": 64}
        (choice,) = demo.post("/v1/completions", json=body).json()["choices"]
        # OpenAI's defaults hold there, the model's own here.
        native = {"prefix": hole.prefix, "suffix": hole.suffix, "max_new_tokens": 64, "repetition_penalty": 1}
        assert [choice["text"]] == demo.post("/infill", json=native).json()["infills"]
