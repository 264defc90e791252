"""Clients that leave, and clients that read slowly; the real application on the stand-in for the engine."""

from __future__ import annotations

import socket
import time

import pytest

from tests.service.conftest import wait_for
from tests.service.crowd import completion, post, send_all

TOKEN_S = 0.05


@pytest.fixture
def server(start_stepping):
    return start_stepping({"STEP_TOKEN_S": str(TOKEN_S)}, workers=1, max_new_tokens=10_000, max_context_tokens=20_000)


def leave(client: socket.socket) -> float:
    client.close()
    return time.monotonic()


@pytest.mark.slow
def test_a_stream_whose_client_left_stops_within_two_tokens(server):
    client = server.connect(completion(500, "gone", stream=True))
    seen = b""
    while seen.count(b'"completion"') < 5:
        seen += client.recv(65536)
    leave(client)
    num_tokens = wait_for(lambda: server.jobs("ended").get("gone"), "the end of the job")
    assert num_tokens - seen.count(b'"completion"') <= 2
    wait_for(lambda: server.in_hand() == (0, 0), "the place")


def test_a_request_whose_client_left_stops_within_a_second(server):
    client = server.connect(completion(500, "gone"))
    wait_for(lambda: "gone" in server.jobs("started"), "the job")
    left_s = leave(client)
    wait_for(lambda: "gone" in server.jobs("ended"), "the end of the job")
    assert time.monotonic() - left_s < 1
    wait_for(lambda: server.in_hand() == (0, 0), "the place")


@pytest.mark.slow
def test_a_request_whose_client_left_the_queue_never_starts(server):
    running = server.connect(completion(40, "running"))
    wait_for(lambda: "running" in server.jobs("started"), "the first job")
    waiting = server.connect(completion(1, "gone"))
    wait_for(lambda: server.in_hand() == (1, 1), "the second to wait")
    left_s = leave(waiting)
    wait_for(lambda: server.in_hand() == (1, 0), "its end")
    assert time.monotonic() - left_s < 1
    while running.recv(65536):
        pass
    running.close()
    assert set(server.jobs("started")) == {"running"}


@pytest.mark.slow
def test_after_many_impatient_clients_of_long_requests_the_next_is_answered_soon(start_stepping):
    server = start_stepping(workers=1, max_new_tokens=10_000, max_context_tokens=20_000)
    for _ in range(10):
        clients = [server.connect(completion(10_000)) for _ in range(20)]
        time.sleep(0.5)
        for client in clients:
            client.close()
    left_s = time.monotonic()
    # Whoever asks before the last ones are known to have left is told to come again.
    wait_for(lambda: server.in_hand() == (0, 0), "the places")
    [answer] = send_all(server.port, [completion(1)])
    assert answer.status == 200
    assert time.monotonic() - left_s < 5


@pytest.mark.slow
def test_readers_of_one_byte_per_second_hold_neither_a_place_nor_anybody_else(start_stepping):
    server = start_stepping({"STEP_TOKEN_S": "0.001"}, workers=1, http_threads=8)
    slow = []
    for _ in range(16):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        client.sendall(completion(100, stream=True))
        slow.append(client)
    for _ in range(3):
        assert all(client.recv(1) for client in slow)
        assert server.get("/livez", timeout_s=1)[0] == 200
        time.sleep(1)
    [answer] = send_all(server.port, [completion(1)])
    assert answer.status == 200
    for client in slow:
        client.close()


@pytest.mark.slow
def test_slow_and_silent_clients_delay_no_answer_of_the_real_application(start_stepping):
    server = start_stepping(workers=1, http_threads=4, body_timeout_s=2, max_queue=2)
    body = post("/complete", b'{"prompt": "p"}')
    clients = [server.connect(body[: index % 3 * 40]) for index in range(60)]
    answers = send_all(server.port, [b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", completion(1)] * 5, [0.1] * 10)
    assert {answer.status for answer in answers} == {200}
    assert max(answer.seconds for answer in answers) < 1
    for client in clients:
        assert client.recv(65536)[9:12] in (b"", b"408")
        client.close()
