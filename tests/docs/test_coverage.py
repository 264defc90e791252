"""The page of model types: what it counts, and that a type is told as it was found."""

from __future__ import annotations

import pytest

from tools.coverage.__main__ import probed
from tools.coverage.page import counts, line

EQUAL = {"type": "a", "stage": "done", "engine": "mixed", "wrong": 0, "of": 10, "cached": 9, "continuous": "equal"}
ALONE = {**EQUAL, "type": "b", "continuous": "ValueError: Invalid layer type"}
WRONG = {**EQUAL, "type": "c", "wrong": 2, "cached": 0}
SERIAL = {**EQUAL, "type": "d", "engine": "serial"}
REFUSED = {"type": "e", "stage": "load", "why": "ModelLoadError: no | or <"}
UNBUILT = {"type": "f", "stage": "build", "why": "TypeError: sizes"}


def test_equal_answers_together_and_alone_are_counted_of_those_that_were_built():
    told = counts([EQUAL, ALONE, WRONG, SERIAL, REFUSED, UNBUILT])
    assert "6 types; 5 could be built" in told
    assert "3 (60%) answer as `generate` does; 2 (40%) do so with sequences together" in told
    assert "Engines: mixed 3, serial 1, refused 1." in told
    assert "equal for 3 (60%); 1 types decode together here and not there" in told


def test_a_line_says_what_was_found_and_breaks_no_table():
    assert line(WRONG) == "| `c` | mixed | 2 of 10 differ | no | equal |  |"
    assert line(REFUSED) == "| `e` | refused | no | no |  | ModelLoadError: no \\| or &lt; |"
    assert line(UNBUILT) == "| `f` | not built | | | | TypeError: sizes |"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "engine", "continuous"),
    [("gemma3_text", "mixed", "equal"), ("mamba", "mixed", "ValueError: Invalid layer type: linear_attention")],
)
def test_a_type_is_built_loaded_and_compared(model_type, engine, continuous):
    found = probed(model_type)
    assert found["stage"] == "done" and (found["engine"], found["wrong"]) == (engine, 0)
    assert found["continuous"] == continuous
