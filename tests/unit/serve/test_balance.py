from __future__ import annotations

import time

import pytest

from app.serve.board.balance import LIMIT_S, Deferral, has_other_server, is_my_turn
from app.serve.board.slot_board import SILENT_AFTER_S, SlotBoard
from app.serve.connections.deadlines import DeadlineQueue


def board_with(*workers: tuple[str, int]) -> SlotBoard:
    """One worker per given state and load."""
    board = SlotBoard([()] * len(workers))
    for slot, (state, load) in enumerate(workers):
        board.lease(pid=100 + slot)
        board.set_state(slot, state)
        with board.locked() as rows:
            rows[slot].num_running = load
    return board


def accepting(board: SlotBoard) -> list[int]:
    with board.locked() as rows:
        return [slot for slot in range(len(rows)) if is_my_turn(rows, slot, time.monotonic())]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([("ready", 1), ("ready", 0)], [1]),
        ([("ready", 1), ("ready", 1)], [0, 1]),
        ([("loading", 0), ("ready", 9)], [1]),
        ([("failed", 0), ("ready", 9)], [1]),
        ([("draining", 0), ("ready", 9)], [1]),
        ([("loading", 1), ("failed", 0)], [1]),
        ([("ready", 5)], [0]),
    ],
)
def test_the_least_loaded_ready_worker_accepts(workers, expected):
    board = board_with(*workers)
    assert [slot for slot in accepting(board) if workers[slot][0] != "draining"] == expected


def test_each_request_counts_once_whether_it_runs_waits_or_came_just_now():
    board = board_with(("ready", 1), ("ready", 0), ("ready", 0))
    with board.locked() as rows:
        rows[1].num_waiting = 2
        rows[2].num_connections = 1
    assert accepting(board) == [0, 2]


def test_a_slot_without_a_worker_accepts_nothing():
    board = board_with(("ready", 3), ("ready", 0))
    board.free(1)
    assert accepting(board)[0] == 0


def test_a_worker_without_a_slot_accepts_only_when_nobody_else_can():
    with board_with(("ready", 3)).locked() as rows:
        assert not is_my_turn(rows, None, time.monotonic())
    with SlotBoard([()]).locked() as rows:
        assert is_my_turn(rows, None, time.monotonic())


def test_a_worker_that_seems_to_have_stopped_is_waited_for_by_nobody():
    board = board_with(("ready", 3), ("ready", 0))
    now_s = time.monotonic()
    board.note_alive(1, now_s)
    with board.locked() as rows:
        assert not is_my_turn(rows, 0, now_s)
        assert has_other_server(rows, 0, now_s)
        assert is_my_turn(rows, 0, now_s + SILENT_AFTER_S + 1)
        assert not has_other_server(rows, 0, now_s + SILENT_AFTER_S + 1)


def test_deferring_pauses_and_ends_after_its_limit():
    deferral = Deferral()
    assert deferral.defer(10.0)
    assert deferral.is_paused(10.001)
    assert not deferral.is_paused(10.01)
    assert deferral.defer(10.0 + LIMIT_S / 2)
    assert not deferral.defer(10.0 + LIMIT_S)
    deferral.end()
    assert deferral.defer(20.0)


def test_a_client_that_came_after_the_last_look_has_not_been_deferred_yet():
    deferral = Deferral()
    for now_s in range(10):
        deferral.polling_since_s = now_s - 0.9
        assert deferral.defer(float(now_s))
    deferral.polling_since_s = 9.5
    assert not deferral.defer(9.5)


def test_deadlines_expire_in_order_of_arrival():
    queue: DeadlineQueue[str] = DeadlineQueue(5.0)
    assert queue.next_s() == float("inf")
    queue.add("a", 1.0)
    queue.add("b", 2.0)
    queue.add("c", 3.0)
    queue.discard("b")
    assert queue.next_s() == 6.0
    assert queue.take_expired(5.9) == []
    assert queue.take_expired(8.0) == ["a", "c"]
    assert len(queue) == 0
