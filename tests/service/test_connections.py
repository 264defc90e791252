"""Slow, silent, oversized and odd clients against real workers; requests spread over workers."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.service.conftest import wait_for

PROMPTLY_S = 10.0


def read_answer(sock: socket.socket) -> tuple[int, dict, bytes]:
    """Status, JSON body and head of the one answer on this connection, which then is closed."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), head


def test_hundreds_of_silent_and_half_sent_connections_delay_nobody(start_server):
    server = start_server(workers=1, http_threads=4)
    beginnings = [b"", b"GET /li", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"]
    clients = [server.connect(beginnings[n % 3]) for n in range(300)]
    for _ in range(20):
        assert server.get("/livez", timeout_s=PROMPTLY_S)[0] == 200
        assert server.get("/work?s=0", timeout_s=PROMPTLY_S)[0] == 200
    for client in clients:
        client.close()


@pytest.mark.slow
def test_when_connections_run_out_the_oldest_unfinished_ones_make_room(start_server):
    server = start_server({"GUNICORN_CMD_ARGS": "--worker-connections 20"}, workers=1)
    clients = [server.connect(b"GET /li") for _ in range(60)]
    for _ in range(5):
        assert server.get("/livez", timeout_s=10)[0] == 200
    for client in clients:
        client.close()


def test_clients_that_hold_their_finished_connections_delay_nobody(plain_server):
    clients = [plain_server.connect(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(50)]
    for _ in range(10):
        assert plain_server.get("/livez", timeout_s=PROMPTLY_S)[0] == 200
    for client in clients:
        assert read_answer(client)[0] == 200
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("beginning", [b"GET /livez HT", b"POST /echo HTTP/1.1\r\nContent-Length: 10000\r\n\r\n"])
def test_a_dripping_client_gets_408_at_the_deadline(start_server, beginning):
    server = start_server(workers=1, body_timeout_s=1)
    with server.connect(beginning) as client:
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    client.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            status, body, head = read_answer(client)
        finally:
            stop.set()
            dripping.join()
    assert (status, body["error"]["code"]) == (408, "body_timeout")
    assert f"X-Request-Id: {body['request_id']}".encode() in head


@pytest.mark.slow
def test_a_silent_connection_is_closed_at_the_deadline_without_an_answer(start_server):
    server = start_server(workers=1, body_timeout_s=0.5)
    with server.connect() as client:
        assert client.recv(100) == b""


@pytest.mark.slow
def test_a_client_that_does_not_read_is_dropped_and_its_place_given_back(start_server):
    server = start_server(workers=1, write_timeout_s=0.5)
    with server.connect(b"GET /stream?s=60&bytes=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        wait_for(lambda: server.rows()[0]["num_running"] == 1, "the stream")
        wait_for(lambda: server.rows()[0]["num_running"] == 0, "its end")
    assert "client_does_not_read" in server.log()
    assert "Traceback" not in server.log()


def test_chunked_bodies_arrive_decoded(plain_server):
    pieces = [b"a" * 70_000, b"b" * 3, b"c" * 200_000]
    status, answer = plain_server.request("POST", "/echo", body=iter(pieces))
    assert status == 200
    assert answer == {"body": b"".join(pieces).decode(), "length": 270_003}


def test_bodies_over_the_limit_reach_the_application_as_such(start_server):
    server = start_server(workers=1, max_body_bytes=100_000)
    assert server.request("POST", "/echo", body=b"x" * 100_000)[1]["length"] == 100_000
    with server.connect(
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000
    ) as client:
        assert read_answer(client)[1] == {"too_large": 9_000_000}
    chunk = b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect(head + chunk * 3) as client:
        assert read_answer(client)[1]["too_large"] > 100_000


def test_a_client_that_waits_for_100_continue_gets_it_once(plain_server):
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with plain_server.connect(head) as client:
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert read_answer(client)[:2] == (200, {"body": "hello", "length": 5})


def test_a_client_with_a_body_that_is_too_large_is_answered_instead_of_told_to_continue(start_server):
    server = start_server(workers=1, max_body_bytes=10)
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n"
    with server.connect(head) as client:
        assert read_answer(client)[:2] == (200, {"too_large": 50})


def test_bytes_behind_the_request_are_ignored_and_the_answer_arrives(plain_server):
    request = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
    for _ in range(20):
        with plain_server.connect(request * 2000) as client:
            assert read_answer(client)[:2] == (200, {"body": "hi", "length": 2})


def test_a_client_may_close_its_sending_side(plain_server):
    with plain_server.connect(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client)[0] == 200


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"GET /<script> HTTP/9\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "bad_request"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 20_000, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: cake\r\n\r\n", 417, "expectation_failed"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: br\r\n\r\n", 501, "unsupported_transfer_coding"),
        (b"GET /breaks HTTP/1.1\r\nHost: localhost\r\n\r\n", 500, "internal_error"),
    ],
)
def test_what_the_application_cannot_answer_gets_the_envelope_too(plain_server, raw, status, code):
    with plain_server.connect(raw) as client:
        found, body, head = read_answer(client)
    assert (found, body["error"]["code"]) == (status, code)
    assert b"application/json" in head
    assert "secret" not in json.dumps(body)
    assert "script" not in json.dumps(body)


def test_two_long_requests_never_land_on_the_same_worker(start_server):
    server = start_server(workers=2, num_ready=2)
    with ThreadPoolExecutor(2) as pool:
        for attempt in range(8):  # fifty times in tests/chaos/test_balance.py
            first = pool.submit(server.get, "/work?s=0.3")
            if attempt % 2:
                time.sleep(0.05)
            second = pool.submit(server.get, "/work?s=0.3")
            slots = [future.result()[1]["slot"] for future in (first, second)]
            assert sorted(slots) == [0, 1]


@pytest.mark.slow
def test_silent_connections_do_not_count_as_load(start_server):
    server = start_server(workers=2, num_ready=2)
    silent = [server.connect() for _ in range(21)]
    wait_for(lambda: sum(row["num_connections"] for row in server.rows()) <= 1, "old connections to stop counting")
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            answers = pool.map(server.get, ["/work?s=0.3"] * 2)
            assert sorted(answer[1]["slot"] for answer in answers) == [0, 1]
    for client in silent:
        client.close()


def test_overload_is_refused_and_everything_admitted_is_served(start_server):
    server = start_server(workers=2, num_ready=2, max_batch_size=1, max_queue=2)
    with ThreadPoolExecutor(10) as pool:
        statuses = [status for status, _ in pool.map(server.get, ["/work?s=1"] * 10)]
    assert sorted(statuses) == [200] * 4 + [503] * 6
