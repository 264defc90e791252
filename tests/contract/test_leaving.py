"""Callers that leave and deadlines that pass: the job stops and the place is given back once."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from structlog.testing import capture_logs

from tests.contract.conftest import client_of
from tests.contract.doubles import Gate
from tests.contract.reading import assert_envelope
from tests.waiting import wait_until

GOOD = {"prompt": "abc"}


@pytest.fixture
def connection():
    """The server's and the client's end of a connection; with a write deadline, as the worker sets it."""
    ends = socket.socketpair()
    ends[0].settimeout(30.0)
    yield ends
    for end in ends:
        end.close()


def send_in_background(client, connection, body):
    """A request that is in progress; returns its thread and the list that its answer will be in."""
    answers = []

    def send():
        answers.append(client.post("/complete", json=body, environ_overrides={"gunicorn.socket": connection[0]}))

    thread = threading.Thread(target=send)
    thread.start()
    return thread, answers


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_while_it_waits_stops_the_job_before_it_starts(client, world, connection, stream):
    world.inference.before_start = Gate()
    thread, answers = send_in_background(client, connection, GOOD | {"stream": stream})
    wait_until(lambda: world.board.rows()[0].num_waiting == 1)
    connection[1].close()
    thread.join(5)
    assert answers[0].status_code == 499
    job = world.inference.jobs[0]
    assert job.has_ended and job.timings.started_s is None
    assert world.num_places() == 0


def test_a_caller_who_leaves_while_tokens_come_stops_an_unstreamed_job(client, world, connection):
    world.inference.script = [0.01, "x"] * 2000
    thread, answers = send_in_background(client, connection, GOOD)
    wait_until(lambda: bool(world.inference.jobs) and world.inference.jobs[0].usage.completion_tokens > 3)
    connection[1].close()
    thread.join(5)
    assert answers[0].status_code == 499
    assert world.inference.jobs[0].has_ended and world.inference.jobs[0].usage.completion_tokens < 2000


def test_a_caller_who_leaves_while_a_stream_is_silent_ends_it(client, world, connection):
    world.inference.script = ["a", Gate()]
    body = GOOD | {"stream": True}
    with capture_logs() as lines:
        response = client.post("/complete", json=body, environ_overrides={"gunicorn.socket": connection[0]})
        connection[1].close()
        assert b"[DONE]" not in response.get_data()
        response.close()
    assert world.inference.jobs[0].has_ended
    assert [line["error"] for line in lines if line["event"] == "request"] == ["client_disconnected"]


HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


@pytest.mark.parametrize(("path", "body"), [("/v1/messages", HI), ("/v1/responses", {"input": "hi"})])
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_ends_a_conversation_in_any_apis_form(client, world, connection, path, body, stream):
    world.inference.script = ["a", Gate()]
    wanted = {"path": path, "json": body | {"stream": stream}}
    with capture_logs() as lines:
        threading.Timer(0.3, connection[1].close).start()
        response = client.post(**wanted, environ_overrides={"gunicorn.socket": connection[0]})
        said = response.get_data()
        response.close()
    assert b"message_stop" not in said and b"completed" not in said
    assert world.inference.jobs[0].has_ended and world.num_places() == 0
    assert [line["error"] for line in lines if line["event"] == "request"] == ["client_disconnected"]


def test_a_caller_who_is_still_there_or_has_sent_more_is_not_taken_for_gone(client, connection):
    for sent in (b"", b"more"):
        connection[1].send(sent)
        answer = client.post("/complete", json=GOOD, environ_overrides={"gunicorn.socket": connection[0]})
        assert answer.status_code == 200


@pytest.mark.parametrize("num_read", [0, 1, 2])
def test_a_stream_that_the_server_closes_stops_the_job(client, world, num_read):
    world.inference.script = ["a", Gate()]
    response = client.post("/complete", json=GOOD | {"stream": True})
    chunks = response.iter_encoded()
    for _ in range(num_read):
        next(chunks)
    assert world.num_places() == 1
    response.close()
    assert world.inference.jobs[0].has_ended
    assert world.num_places() == 0
    response.close()
    assert world.num_places() == 0


def test_the_place_is_held_until_the_engine_lets_go(client, world, monkeypatch):
    monkeypatch.setattr("app.http.requests.running.RELEASE_WAIT_S", 0.05)
    gate = Gate()
    world.inference.script, world.inference.ignores_cancel = ["a", gate], True
    response = client.post("/complete", json=GOOD | {"stream": True})
    response.close()
    assert world.num_places() == 1, "the engine still works on the sequence"
    gate.set()
    wait_until(lambda: world.num_places() == 0)


def test_a_stream_that_is_read_slowly_gives_its_place_back_when_the_sequence_ends(client, world):
    response = client.post("/complete", json=GOOD | {"stream": True})
    chunks = response.iter_encoded()
    wait_until(lambda: world.inference.jobs[0].has_ended)
    while b"[DONE]" not in next(chunks):
        pass
    assert world.num_places() == 0
    response.close()


@pytest.mark.parametrize("stream", [False, True])
def test_waiting_too_long_is_a_504(make_world, stream):
    world = make_world(queue_timeout_s=0.05)
    world.inference.before_start = Gate()
    response = client_of(world).post("/complete", json=GOOD | {"stream": stream})
    assert_envelope(response, 504, "queue_timeout")
    assert response.headers["X-Should-Retry"] == "false"


@pytest.mark.parametrize("stream", [False, True])
def test_taking_too_long_is_a_504(make_world, stream):
    world = make_world(request_timeout_s=0.05)
    world.inference.script = [Gate()]
    assert_envelope(client_of(world).post("/complete", json=GOOD | {"stream": stream}), 504, "request_timeout")


def test_the_caller_may_shorten_both_limits_but_not_lengthen_them(client, world):
    def limits_of(headers):
        before_s = time.monotonic()
        assert client.post("/complete", json=GOOD, headers=headers).status_code == 200
        job = world.inference.jobs[-1]
        return round(job.queue_deadline_s - before_s), round(job.deadline_s - before_s)

    assert limits_of({}) == (30, 300)
    assert limits_of({"X-Request-Timeout-S": "20"}) == (20, 20)
    assert limits_of({"X-Request-Timeout-S": "100.2"}) == (30, 100)
    assert limits_of({"X-Request-Timeout-S": "9999"}) == (30, 300)


def test_a_caller_that_cannot_be_served_in_its_own_time_is_refused_at_once(make_world):
    world = make_world(max_queue=5)
    client, place = client_of(world), world.context.admission.enter()
    with world.board.locked() as rows:
        rows[0].service_s = 100.0
    response = client.post("/complete", json=GOOD, headers={"X-Request-Timeout-S": "5"})
    assert_envelope(response, 503, "overloaded")
    place.release()


@pytest.mark.parametrize(
    ("limits", "code"), [({"queue_timeout_s": 0.05}, "queue_timeout"), ({"request_timeout_s": 0.2}, "request_timeout")]
)
def test_an_engine_that_hangs_is_answered_for(make_world, monkeypatch, limits, code):
    monkeypatch.setattr("app.http.requests.running.DEADLINE_GRACE_S", 0.05)
    monkeypatch.setattr("app.http.requests.running.RELEASE_WAIT_S", 0.05)
    world = make_world(**limits)
    gate = Gate()
    world.inference.ignores_cancel = True
    if code == "queue_timeout":
        world.inference.before_start = gate
    else:
        world.inference.script = [gate]
    assert_envelope(client_of(world).post("/complete", json=GOOD), 504, code)
    assert world.num_places() == 1, "the engine still holds the sequence"
    gate.set()
    wait_until(lambda: world.num_places() == 0)


def test_many_requests_at_once_leave_no_place_behind(make_world):
    world = make_world(max_queue=4)
    world.inference.script = [0.005, "x"]
    client = client_of(world)
    statuses = []

    def send(number):
        response = client.post("/complete", json=GOOD | {"stream": number % 2 == 0})
        statuses.append(response.status_code)
        response.get_data()
        response.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(statuses) == 30 and set(statuses) <= {200, 503} and 200 in statuses
    assert world.num_places() == 0
