"""Work that runs in pieces takes turns with its owner on one thread, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager

import pytest

from app.engine.generation.stepped_work import SteppedWork


def counting(notes: list[str], num_pieces: int):
    def work(pause):
        try:
            for at in range(num_pieces):
                notes.append(f"work {at}")
                if at + 1 < num_pieces:
                    pause()
        finally:
            notes.append("unwound")

    return work


def test_owner_and_work_take_turns_piece_by_piece():
    notes: list[str] = []
    work = SteppedWork(counting(notes, 3))
    goes_on = True
    while goes_on:
        notes.append("owner")
        goes_on = work.advance()
    assert notes == ["owner", "work 0", "owner", "work 1", "owner", "work 2", "unwound"]


def test_both_are_one_thread():
    threads = []

    def work(pause):
        threads.append(threading.get_ident())
        pause()
        threads.append(threading.get_ident())

    stepped = SteppedWork(work)
    while stepped.advance():
        pass
    assert threads == [threading.get_ident()] * 2


def test_what_the_work_raises_comes_out_where_it_was_asked_for():
    def work(pause):
        pause()
        raise ValueError("in the second piece")

    stepped = SteppedWork(work)
    assert stepped.advance()
    with pytest.raises(ValueError, match="second piece"):
        stepped.advance()
    stepped.abandon()


def test_what_the_work_raises_keeps_nothing_of_it_alive():
    class Held:
        pass

    gone = []

    def work(pause):
        held = Held()
        gone.append(held)
        raise ValueError

    stepped = SteppedWork(work)
    with pytest.raises(ValueError):
        stepped.advance()
    del stepped
    gc.collect()
    assert gc.get_referrers(gone[0]) == [gone]


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


def test_work_that_was_never_asked_for_never_runs():
    SteppedWork(lambda pause: pytest.fail("nobody asked")).abandon()


def test_letting_go_of_it_ends_the_work():
    notes: list[str] = []
    stepped = SteppedWork(counting(notes, 5))
    stepped.advance()
    del stepped
    assert notes == ["work 0", "unwound"]


def test_every_piece_and_the_end_run_in_their_context():
    notes: list[str] = []

    @contextmanager
    def around():
        notes.append("in")
        yield
        notes.append("out")

    stepped = SteppedWork(counting(notes, 3), around)
    stepped.advance()
    stepped.abandon()
    assert notes == ["in", "work 0", "out", "in", "unwound", "out"]


def test_another_thread_may_let_go_of_it():
    held = [SteppedWork(counting([], 5))]
    held[0].advance()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert held == []
