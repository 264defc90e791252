"""More requests than there is room for, and requests whose time is up; the real application."""

from __future__ import annotations

import pytest

from tests.service.conftest import wait_for
from tests.service.crowd import completion, send_all

NUM_CLIENTS = 200


@pytest.mark.parametrize("num_workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_of_a_crowd_exactly_those_there_is_room_for_are_served_and_the_rest_told_to_come_again(
    start_stepping, num_workers
):
    server = start_stepping(workers=num_workers, num_ready=num_workers, max_queue=10)
    num_served = num_workers + 10
    num_refused = NUM_CLIENTS - num_served
    server.gate.touch()
    answers = send_all(
        server.port,
        [completion()] * NUM_CLIENTS,
        # Nobody who was admitted is served before the last refusal has come.
        on_answer=lambda num: server.gate.unlink() if num == num_refused else None,
    )
    refused = [answer for answer in answers if answer.status == 503]
    assert [answer.status for answer in answers].count(200) == num_served
    assert len(refused) == num_refused
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
    took_s = sorted(answer.seconds for answer in refused)
    print(f"{num_workers} workers: 99% of the refusals within {took_s[int(0.99 * len(took_s))]:.3f} s")
    assert server.in_hand() == (0, 0)


def test_a_request_that_waits_too_long_is_a_504_and_never_reaches_the_engine(start_stepping):
    server = start_stepping(workers=1, queue_timeout_s=1)
    server.gate.touch()
    [first, second] = send_all(
        server.port,
        [completion(1, "first", "X-Request-Timeout-S: 2\r\n"), completion(1, "second")],
        pauses_s=[0, 0.2],
    )
    assert (first.status, first.json()["error"]["code"]) == (504, "request_timeout")
    assert (second.status, second.json()["error"]["code"]) == (504, "queue_timeout")
    assert second.headers["x-should-retry"] == "false"
    assert set(server.jobs("started")) == {"first"}
    wait_for(lambda: server.in_hand() == (0, 0), "the places")


@pytest.mark.slow
def test_a_stream_that_takes_too_long_ends_with_an_error_event(start_stepping):
    server = start_stepping({"STEP_TOKEN_S": "0.05"}, workers=1, request_timeout_s=1)
    [answer] = send_all(server.port, [completion(500, stream=True)])
    assert answer.status == 200
    assert b"request_timeout" in answer.body
    assert b"[DONE]" not in answer.body


@pytest.mark.slow
def test_a_request_that_cannot_be_served_in_its_own_time_is_refused_at_once(start_stepping):
    server = start_stepping({"STEP_TOKEN_S": "0.01"}, workers=1)
    send_all(server.port, [completion(100)])
    requests = [completion(100), completion(100), completion(1, "late", "X-Request-Timeout-S: 0.5\r\n")]
    [_, _, late] = send_all(server.port, requests, pauses_s=[0, 0.1, 0.1])
    assert (late.status, late.json()["error"]["code"]) == (503, "overloaded")
    assert late.seconds < 0.5
    assert int(late.headers["retry-after"]) >= 1
    assert "late" not in server.jobs("started")
