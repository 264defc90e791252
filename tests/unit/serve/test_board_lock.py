"""A process that holds the board's lock and does not run stops nobody."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import contextmanager

import pytest

from app.serve.board import slot_board as board_module
from app.serve.board.slot_board import SlotBoard

FORK = multiprocessing.get_context("fork")
# Longer than any limit in the code, shorter than anybody's patience.
SOON_S = 5.0


@contextmanager
def stopped_holder(board: SlotBoard):
    """A process that is stopped while it holds the lock."""
    ready = FORK.Event()

    def hold() -> None:
        with board.locked() as rows:
            ready.set()
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGSTOP)
            rows[1].num_waiting += 1
        os._exit(0)

    process = FORK.Process(target=hold)
    process.start()
    ready.wait(10)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.join(10)


@pytest.fixture
def board():
    made = SlotBoard([(), ()])
    made.lease(pid=1)
    made.lease(pid=2)
    return made


def test_others_go_on_without_it_and_only_the_first_has_to_wait(board):
    with stopped_holder(board):
        started_s = time.monotonic()
        for _ in range(100):
            board.set_state(0, "ready")
        assert time.monotonic() - started_s < SOON_S
        with board.locked() as rows:
            rows[0].num_running = 3
    assert [row.num_running for row in board.rows()] == [3, 0]


def test_readers_never_wait(board, monkeypatch):
    monkeypatch.setattr(board_module, "LOCK_LIMIT_S", 60.0)
    with stopped_holder(board):
        started_s = time.monotonic()
        for _ in range(20):
            assert len(board.rows()) == 2
            assert board.slot_of(1) == 0
        assert time.monotonic() - started_s < SOON_S


def test_a_holder_that_goes_on_later_writes_its_own_row_only(board):
    with stopped_holder(board):
        board.set_state(0, "ready")
    assert [(row.state, row.num_waiting) for row in board.rows()] == [("ready", 0), ("loading", 1)]


def test_the_lock_keeps_others_out_again_once_it_was_passed_on(board):
    with stopped_holder(board):
        board.set_state(0, "ready")

        def bump() -> None:
            for _ in range(200):
                with board.locked() as rows:
                    rows[0].num_running += 1

        processes = [FORK.Process(target=bump) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
        assert board.rows()[0].num_running == 600
