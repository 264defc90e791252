"""Every mistake at a start is one line with exit code 3: the real program, once per mistake."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.start_mistakes import MISTAKES, Mistake, Outcome, attempt, possible, row
from tools.pages import REPOSITORY

# One of each part that finds mistakes: environment, options, addresses, folders, headers.
FEW = {"keys without a key", "--max-requests", "a port that is taken", "weights of another user", "700,000 tensors"}
# Three at a time: most of a start is waiting for files.
NUM_AT_ONCE = 3


def outcomes(mistakes: list[Mistake]) -> list[Outcome]:
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        return list(pool.map(attempt, mistakes))


def require_one_line(outcome: Outcome) -> None:
    assert outcome.mistake.said in outcome.line, outcome.output
    assert outcome.code == 3, outcome.output
    if not outcome.mistake.needs_model:
        # Nothing was started, so nothing else was said.
        assert outcome.output.splitlines() == outcome.lines
        assert len(outcome.lines) == 1, outcome.output
    assert [line for line in outcome.lines if line.startswith("forklift: ")] == [outcome.lines[-1]]
    assert "Traceback" not in outcome.output
    assert len(outcome.output) < 20_000


@pytest.mark.slow
def test_a_few_mistakes_are_one_line_each():
    few = [one for one in possible() if one.name in FEW]
    assert few
    for outcome in outcomes(few):
        require_one_line(outcome)


@pytest.mark.chaos
def test_every_mistake_is_one_line(capsys):
    found = outcomes(possible())
    with capsys.disabled():
        print("", *map(row, found), sep="\n")
    for outcome in found:
        require_one_line(outcome)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_each_mistake_is_in_the_documentation_with_its_line(mistake):
    page = (REPOSITORY / "docs" / "start-errors.md").read_text(encoding="utf-8")
    [line] = [line for line in page.splitlines() if line.startswith(f"| {mistake.name} |")]
    assert mistake.said in line
    assert "| 3 |" in line
