"""Work that runs in pieces on a thread of its own never runs beside its owner, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading

import pytest

from app.engine.generation.stepped_work import SteppedWork
from tests.waiting import wait_until


def num_threads() -> int:
    return sum(thread.name == "stepped-work" for thread in threading.enumerate())


def counting(notes: list[str], num_pieces: int):
    def work(pause):
        for at in range(num_pieces):
            notes.append(f"work {at}")
            if at + 1 < num_pieces:
                pause()

    return work


def test_owner_and_work_take_turns_piece_by_piece():
    notes: list[str] = []
    work = SteppedWork(counting(notes, 3))
    goes_on = True
    while goes_on:
        notes.append("owner")
        goes_on = work.advance()
    assert notes == ["owner", "work 0", "owner", "work 1", "owner", "work 2"]
    assert num_threads() == 0


def test_what_the_work_raises_comes_out_where_it_was_asked_for():
    def work(pause):
        pause()
        raise ValueError("in the second piece")

    stepped = SteppedWork(work)
    assert stepped.advance()
    with pytest.raises(ValueError, match="second piece"):
        stepped.advance()
    assert num_threads() == 0


def test_work_that_is_abandoned_unwinds_at_its_pause_whatever_it_catches():
    notes = []

    def work(pause):
        try:
            try:
                pause()
            except Exception:
                notes.append("taken for a failure")
        finally:
            notes.append("unwound")

    stepped = SteppedWork(work)
    stepped.advance()
    stepped.abandon()
    stepped.abandon()
    assert notes == ["unwound"]
    assert num_threads() == 0


def test_work_that_was_never_asked_for_never_runs():
    SteppedWork(lambda pause: pytest.fail("nobody asked")).abandon()
    assert num_threads() == 0


def test_letting_go_of_it_ends_the_work():
    notes: list[str] = []
    stepped = SteppedWork(counting(notes, 5))
    stepped.advance()
    del stepped
    gc.collect()
    wait_until(lambda: num_threads() == 0)
    assert notes == ["work 0"]
