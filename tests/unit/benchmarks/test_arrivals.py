"""The pauses of streams within a time are told from those before and behind it."""

from __future__ import annotations

import click
import pytest

from app.cli.loadtest.figures import Result
from benchmarks.arrivals import gaps_within, row

# Tokens at 1.5, 2.0, 2.5, 4.5 and 5.0.
STREAM = Result(200, 4.5, 5, ttft_s=1.0, gaps_s=(0.5, 0.5, 2.0, 0.5), started_s=0.5)


def test_gaps_are_those_that_end_within_the_time():
    assert gaps_within([STREAM], 0.0, 9.0) == [0.5, 0.5, 0.5, 2.0]
    assert gaps_within([STREAM, STREAM], 2.2, 4.5) == [0.5, 0.5, 2.0, 2.0]
    assert gaps_within([STREAM], 5.0, 9.0) == []


def test_a_row_has_the_gaps_from_the_first_arrival_to_the_last_first_token():
    arrived = [Result(200, 2.5, 2, ttft_s=2.4, gaps_s=(0.1,), started_s=2.2)]
    found = row("one", [Result(200, 1.0, 2, ttft_s=0.9, started_s=0.0)], [STREAM], arrived)
    assert (found["gaps"], found["gap before p50 ms"], found["gap during p99 ms"]) == (2, 500.0, 2000.0)
    assert found["first token alone ms"] == 900.0


def test_a_failed_request_is_no_figure():
    failed = Result(503, 1.0, error="busy")
    with pytest.raises(click.ClickException, match="busy"):
        row("one", [failed], [STREAM], [STREAM])
