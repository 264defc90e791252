from __future__ import annotations

import multiprocessing
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidParameterError, LoadingError, OverloadedError, ShuttingDownError
from app.core.settings import Settings
from app.serve.board.admission import Admission, ConnectionTicket, RequestTicket, expected_wait_s
from app.serve.board.slot_board import SlotBoard

FORK = multiprocessing.get_context("fork")


def ready_board(num_slots: int) -> SlotBoard:
    board = SlotBoard([()] * num_slots)
    for _ in range(num_slots):
        board.set_state(board.lease(), "ready", 1.0)
    return board


def admission_of(board: SlotBoard, slot: int | None = 0, *, batch: int = 1, queue: int = 2) -> Admission:
    return Admission(Settings(max_batch_size=batch, max_queue=queue), board, slot)


def counts(board: SlotBoard, slot: int = 0) -> tuple[int, int, int]:
    row = board.rows()[slot]
    return row.num_running, row.num_waiting, row.num_connections


def test_places_are_those_of_all_ready_workers_and_the_queue():
    board = ready_board(2)
    admissions = [admission_of(board, 0), admission_of(board, 1)]
    places = [admissions[n % 2].enter() for n in range(4)]
    with pytest.raises(OverloadedError) as refusal:
        admissions[0].enter()
    assert refusal.value.retry_after_s == 1
    places[0].release()
    admissions[1].enter()


def test_a_place_waits_then_runs_then_is_gone():
    board = ready_board(1)
    place = admission_of(board).enter()
    assert counts(board) == (0, 1, 0)
    place.start()
    place.start()
    assert counts(board) == (1, 0, 0)
    place.release()
    place.release()
    place.start()
    assert counts(board) == (0, 0, 0)


def test_a_place_is_released_once_however_many_threads_do_it():
    board = ready_board(1)
    place, other = admission_of(board).enter(), admission_of(board).enter()
    threads = [threading.Thread(target=place.release) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(board) == (0, 1, 0)
    other.release()


@pytest.mark.parametrize(
    ("state", "error"), [("loading", LoadingError), ("failed", LoadingError), ("draining", ShuttingDownError)]
)
def test_a_worker_that_is_not_ready_admits_nothing(state, error):
    board = SlotBoard([()])
    board.set_state(board.lease(), state)
    with pytest.raises(error) as refusal:
        admission_of(board).enter()
    assert refusal.value.retry_after_s >= 1


def test_a_worker_without_a_slot_is_loading():
    with pytest.raises(LoadingError):
        admission_of(ready_board(1), None).enter()


def test_retry_after_follows_queue_and_service_time():
    board = ready_board(1)
    with board.locked() as rows:
        rows[0].service_s = 2.5
    admission = admission_of(board)
    for _ in range(3):
        admission.enter()
    with pytest.raises(OverloadedError) as refusal:
        admission.enter()
    assert refusal.value.retry_after_s == 8  # three requests of 2.5 s have to end


def test_a_request_that_would_wait_past_its_own_limit_is_refused_at_once():
    board = ready_board(1)
    with board.locked() as rows:
        rows[0].service_s = 10.0
    admission = admission_of(board, queue=5)
    admission.enter(limit_s=1.0)
    with pytest.raises(OverloadedError) as refusal:
        admission.enter(limit_s=9.0)
    assert refusal.value.retry_after_s == 10
    admission.enter(limit_s=10.0)


def test_service_time_is_a_moving_mean():
    board = ready_board(1)
    admission = admission_of(board)
    for started_s in (-10.0, -20.0):
        place = admission.enter()
        place.start()
        place._started_s[0] += started_s
        place.release()
    with board.locked() as rows:
        assert rows[0].service_s == pytest.approx(12.0, abs=0.5)


@pytest.mark.parametrize(
    ("taken", "num_running", "service_s", "wait_s"),
    [(0, 1, 4.0, 0.0), (1, 1, 4.0, 4.0), (2, 1, 4.0, 8.0), (4, 4, 4.0, 1.0), (3, 4, 4.0, 0.0), (5, 0, 4.0, 0.0)],
)
def test_the_expected_wait_is_until_a_place_is_free(taken, num_running, service_s, wait_s):
    assert expected_wait_s(taken, num_running, service_s) == wait_s


def test_a_connection_is_not_counted_beside_its_place():
    board = ready_board(1)
    admission = admission_of(board)
    with board.locked() as rows:
        hold = ConnectionTicket(board, rows[0])
    assert counts(board) == (0, 0, 1)
    place = admission.enter(connection=hold)
    assert counts(board) == (0, 1, 0)
    hold.drop()
    assert counts(board) == (0, 1, 0)
    place.release()
    assert counts(board) == (0, 0, 0)


def test_the_connection_of_a_refused_request_counts_until_it_is_served():
    board = ready_board(1)
    admission = admission_of(board, batch=1, queue=0)
    place = admission.enter()
    with board.locked() as rows:
        hold = ConnectionTicket(board, rows[0])
    with pytest.raises(OverloadedError):
        admission.enter(connection=hold)
    assert counts(board) == (0, 1, 1)
    hold.drop()
    place.release()
    assert counts(board) == (0, 0, 0)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["enter", "start", "release", "connect", "drop", "die"]), st.integers(0, 30)),
    max_size=60,
)


@given(ACTIONS, st.integers(1, 3), st.integers(0, 3))
def test_no_sequence_of_events_exceeds_the_capacity_or_leaves_a_count_behind(actions, batch, queue):
    board = ready_board(3)
    admissions = [admission_of(board, slot, batch=batch, queue=queue) for slot in range(3)]
    places: list[tuple[int, RequestTicket]] = []
    holds: list[ConnectionTicket] = []
    for action, number in actions:
        slot = number % 3
        if action == "enter":
            try:
                places.append((slot, admissions[slot].enter()))
            except OverloadedError:
                assert sum(row.num_running + row.num_waiting for row in board.rows()) == 3 * batch + queue
        elif action == "connect":
            with board.locked() as rows:
                holds.append(ConnectionTicket(board, rows[slot], is_call=number % 2 == 1))
        elif action == "drop" and holds:
            holds[number % len(holds)].drop()
        elif action == "die":
            board.free(slot)
            assert counts(board, slot) == (0, 0, 0)
            assert board.lease() == slot
            board.set_state(slot, "ready", 1.0)
        elif places:
            place = places[number % len(places)][1]
            place.start() if action == "start" else place.release()
        rows_now = board.rows()
        assert all(min(row.num_running, row.num_waiting, row.num_connections) >= 0 for row in rows_now)
        assert sum(row.num_running + row.num_waiting for row in rows_now) <= 3 * batch + queue
    for _, place in places:
        place.release()
    for hold in holds:
        hold.drop()
    assert all(counts(board, slot) == (0, 0, 0) for slot in range(3))
    with board.locked() as rows:
        assert [row.num_calls for row in rows] == [0, 0, 0]


def test_processes_and_threads_together_never_take_more_than_there_is():
    board = ready_board(4)
    results = FORK.SimpleQueue()

    def run_worker(slot: int) -> None:
        admission = admission_of(board, slot, batch=1, queue=3)
        most = 0

        def requests() -> None:
            nonlocal most
            for _ in range(100):
                try:
                    place = admission.enter()
                except OverloadedError:
                    continue
                taken = sum(row.num_running + row.num_waiting for row in board.rows())
                most = max(most, taken)
                place.start()
                place.release()

        threads = [threading.Thread(target=requests) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results.put(most)

    workers = [FORK.Process(target=run_worker, args=(slot,)) for slot in range(4)]
    for worker in workers:
        worker.start()
    seen = [results.get() for _ in workers]
    for worker in workers:
        worker.join(30)
    assert max(seen) <= 7
    assert all(counts(board, slot) == (0, 0, 0) for slot in range(4))


def test_a_request_takes_as_many_places_as_it_has_sequences():
    board = ready_board(2)
    admission = admission_of(board, batch=2, queue=2)
    place = admission.enter(num_sequences=4)
    assert counts(board) == (0, 4, 0)
    place.start()
    place.start()
    assert counts(board) == (2, 2, 0)
    with pytest.raises(OverloadedError):
        admission.enter(num_sequences=3)
    place.keep(3)
    assert counts(board) == (1, 2, 0)
    admission.enter(num_sequences=3).release()
    place.release()
    place.release()
    assert counts(board) == (0, 0, 0)


def test_more_sequences_than_a_free_server_has_places_are_refused_for_good():
    with pytest.raises(InvalidParameterError, match="FORKLIFT_MAX_QUEUE"):
        admission_of(ready_board(2), batch=2, queue=2).enter(num_sequences=7)


def test_places_are_never_lost_whoever_starts_and_ends_them_at_once():
    board = ready_board(1)
    admission = admission_of(board, batch=64, queue=64)
    places = [admission.enter(num_sequences=4) for _ in range(8)]

    def work(place: RequestTicket) -> None:
        for left in (4, 3, 2, 1, 0):
            place.start()
            place.keep(left)

    threads = [threading.Thread(target=work, args=(place,)) for place in places for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(board) == (0, 0, 0)
