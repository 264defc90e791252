"""The page of model types: what it counts, and that a type is told as it was found."""

from __future__ import annotations

import pytest

from tools.coverage import reasons
from tools.coverage.__main__ import probed
from tools.coverage.page import PAGE, ROWS_TOGETHER, counts, line

EQUAL = {"type": "a", "stage": "done", "engine": "mixed", "wrong": 0, "of": 10, "cached": 9, "continuous": "equal"}
ALONE = {**EQUAL, "type": "b", "continuous": "ValueError: Invalid layer type"}
WRONG = {**EQUAL, "type": "c", "wrong": 2, "cached": 0}
SERIAL = {**EQUAL, "type": "d", "engine": "serial"}
REFUSED = {"type": "e", "stage": "load", "why": "ModelLoadError: no | or <"}
UNBUILT = {"type": "f", "stage": "build", "why": "TypeError: sizes"}
# What the page says of each type that could be built: its engine, and whether it answers as ``generate`` does.
LINES = [one.split(" | ") for one in PAGE.read_text(encoding="utf-8").splitlines() if one.startswith("| `")]
TOLD = {one[0].strip("| `"): (one[1], one[2]) for one in LINES if one[1] != "not built"}


def test_no_type_of_the_page_has_lost_its_engine_and_each_that_is_not_served_in_rows_has_its_reason():
    for engine, known in (("serial", reasons.SERIAL), ("refused", reasons.REFUSED)):
        assert {name for name, told in TOLD.items() if told[0] == engine} == set(known)


def test_the_page_holds_what_was_promised():
    equal = [told for told in TOLD.values() if told[1] == "equal"]
    assert len(equal) >= 0.95 * len(TOLD)
    assert sum(engine in ROWS_TOGETHER for engine, _ in equal) >= 0.85 * len(TOLD)


@pytest.mark.chaos
@pytest.mark.parametrize("model_type", TOLD)
def test_a_type_is_served_as_the_page_says(model_type):
    found = probed(model_type)
    assert (found.get("engine", "refused"), found.get("wrong") == 0) == (
        TOLD[model_type][0],
        TOLD[model_type][1] == "equal",
    )


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
