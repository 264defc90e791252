from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from app.serve.board.slot_board import SlotBoard

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def board() -> SlotBoard:
    return SlotBoard([("a",), ("b",), ("c",)])


def test_the_lowest_free_slot_is_leased(board):
    assert [board.lease(), board.lease(), board.lease()] == [0, 1, 2]
    board.free(1)
    board.free(0)
    assert board.lease() == 0


def test_more_workers_than_slots_get_none(board):
    for _ in range(3):
        board.lease()
    assert board.lease() is None


def test_a_row_shows_labels_pid_and_state(board):
    slot = board.lease()
    board.set_pid(slot, 4711)
    board.set_state(slot, "loading", 0.25)
    row = board.rows()[slot]
    assert (row.slot, row.pid, row.gpus, row.state, row.progress) == (0, 4711, ("a",), "loading", 0.25)
    assert board.rows()[1].pid is None


def test_draining_lasts_until_the_lease_ends(board):
    slot = board.lease()
    board.set_state(slot, "draining")
    board.set_state(slot, "ready", 1.0)
    assert board.rows()[slot].state == "draining"
    board.free(slot)
    assert board.lease() == slot
    assert board.rows()[slot].state == "loading"


def test_the_slot_of_a_process_is_found_by_its_pid(board):
    board.lease(pid=11)
    assert board.slot_of(11) == 0
    assert board.slot_of(12) is None


def test_freeing_clears_the_counters_but_keeps_fast_deaths(board):
    slot = board.lease()
    with board.locked() as rows:
        rows[slot].num_running = rows[slot].num_waiting = rows[slot].num_connections = 3
    assert board.count_death(slot, is_fast=True) == 1
    board.free(slot)
    row = board.rows()[slot]
    assert (row.num_running, row.num_waiting, row.num_connections) == (0, 0, 0)
    assert board.num_fast_deaths(slot) == 1
    assert board.count_death(slot, is_fast=False) == 0


def test_only_one_worker_may_halt_the_server_and_none_after_one_was_ready(board):
    assert board.claim_halt()
    assert not board.claim_halt()
    other = SlotBoard([()])
    other.set_state(other.lease(), "ready", 1.0)
    assert other.was_ever_ready
    assert not other.claim_halt()


def test_a_forked_process_sees_and_writes_the_same_rows(board):
    child = FORK.Process(target=lambda: board.set_state(board.lease(os.getpid()), "ready", 1.0))
    child.start()
    child.join(10)
    assert board.rows()[0].pid == child.pid
    assert board.rows()[0].state == "ready"


def test_the_lock_is_released_when_its_holder_is_killed(board):
    def hold() -> None:
        with board.locked() as rows:
            rows[0].num_running = 7
            time.sleep(60)

    child = FORK.Process(target=hold)
    child.start()
    end_s = time.monotonic() + 10
    while board._rows[0].num_running != 7 and time.monotonic() < end_s:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    assert board.lease() == 0


def test_counting_from_four_processes_loses_nothing(board):
    def count() -> None:
        for _ in range(500):
            with board.locked() as rows:
                rows[0].num_running += 1

    children = [FORK.Process(target=count) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert board.rows()[0].num_running == 2000
