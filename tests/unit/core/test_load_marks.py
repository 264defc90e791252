"""A load that ends its process is not tried again by the next request."""

from __future__ import annotations

import os

import pytest

from app.core.system import load_marks
from app.core.system.load_marks import FIRST_PAUSE_S, LONGEST_PAUSE_S, LoadMarks


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(load_marks.time, "monotonic", lambda: now[0])
    return now


def die(marks: LoadMarks, model: int) -> None:
    """A process that ends in the middle of a load of ``model``."""
    row = marks.bear()
    if not (pid := os.fork()):
        marks.begin(model)
        os._exit(9)
    os.waitpid(pid, 0)
    marks.note_end(row, was_told_to=False)


@pytest.mark.slow
def test_the_pause_grows_with_each_death_and_ends(clock):
    marks = LoadMarks(3, 2)
    die(marks, 1)
    assert marks.pause_s(1) == FIRST_PAUSE_S
    assert marks.pause_s(0) == 0
    clock[0] += FIRST_PAUSE_S
    assert marks.pause_s(1) == 0
    die(marks, 1)
    assert marks.pause_s(1) > FIRST_PAUSE_S
    for _ in range(20):
        die(marks, 1)
    assert marks.pause_s(1) == LONGEST_PAUSE_S


def test_a_load_that_works_clears_the_account(clock):
    marks = LoadMarks(3, 1)
    die(marks, 0)
    marks.bear()
    marks.begin(0)
    marks.end(0, has_worked=True)
    assert (marks.num_deaths(0), marks.pause_s(0)) == (0, 0)


def test_whoever_was_told_to_end_or_loaded_nothing_is_not_counted():
    marks = LoadMarks(3, 1)
    row = marks.bear()
    marks.begin(0)
    marks.note_end(row, was_told_to=True)
    marks.note_end(marks.bear(), was_told_to=False)
    assert marks.num_deaths(0) == 0
