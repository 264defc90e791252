"""Callers that read nothing, that have no key, or that use up what a process may have: the others are served."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.service.conftest import SteppingServer, server_starter, wait_for
from tests.service.crowd import completion, post, send_all
from tests.service.test_connections import read_answer

PROMPTLY_S = 5.0
TEXT = "a" * 300_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    starter = server_starter(tmp_path_factory.mktemp("slow"), SteppingServer)
    yield next(starter)(workers=1, http_threads=4, max_queue=2, write_timeout_s=60, body_timeout_s=60)
    next(starter, None)


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    starter = server_starter(tmp_path_factory.mktemp("locked"), SteppingServer)
    yield next(starter)(workers=1, http_threads=4, api_keys="sesame", body_timeout_s=60)
    next(starter, None)


def announced(num_bytes: int) -> bytes:
    """The head of a request whose body is so long."""
    head = "POST /complete HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {num_bytes}\r\n\r\n".encode()


def deaf_client(port: int, request: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


@pytest.mark.slow
def test_answers_that_nobody_reads_hold_no_thread(server):
    body = post("/complete", b'{"prompt": "' + TEXT.encode() + b'", "echo": true, "stream": true, "max_new_tokens": 1}')
    long = server.get("/livez")
    assert long[0] == 200
    clients = [deaf_client(server.port, body) for _ in range(3)]
    clients += [deaf_client(server.port, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(24)]
    time.sleep(0.5)
    for path in ("/livez", "/readyz", "/health"):
        assert server.get(path, timeout_s=PROMPTLY_S)[0] == 200
    [answer] = send_all(server.port, [completion(1)])
    assert answer.status == 200 and answer.seconds < PROMPTLY_S
    for client in clients:
        client.close()
    wait_for(lambda: server.in_hand() == (0, 0), "the places")


def test_a_slow_reader_gets_its_whole_answer(server):
    [whole] = send_all(server.port, [b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"])
    with deaf_client(server.port, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        time.sleep(0.3)
        data = b""
        while piece := client.recv(8192):
            data += piece
            time.sleep(0.001)
    assert data.partition(b"\r\n\r\n")[2] == whole.body


@pytest.mark.slow
def test_bodies_without_a_key_are_refused_by_their_head_and_not_kept(locked):
    pid = locked.rows()[0]["pid"]
    before_bytes = psutil.Process(pid).memory_info().rss
    head = announced(1_900_000)
    clients = [locked.connect(head + b"x" * 100_000) for _ in range(100)]
    for client in clients:
        status, body, _ = read_answer(client)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        client.close()
    assert locked.get("/livez", timeout_s=PROMPTLY_S)[0] == 200
    assert psutil.Process(pid).memory_info().rss < before_bytes + 50_000_000


def test_large_bodies_together_are_bounded_and_small_requests_pass(server):
    head = announced(2_000_000)
    clients = [server.connect(head) for _ in range(60)]
    statuses = []
    for client in clients:
        try:
            client.sendall(b" " * 1_900_000)
        except OSError:
            statuses.append(503)
    [answer] = send_all(server.port, [completion(1)])
    assert answer.status == 200
    for client in clients:
        client.setblocking(False)
        with suppress(BlockingIOError, ConnectionError, ValueError):
            statuses.append(int(client.recv(100)[9:12]))
        client.close()
    assert 503 in statuses


def test_tiny_chunks_are_refused_after_the_first_thousand(server):
    head = b"POST /complete HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect(head + b"1\r\nx\r\n" * 5000) as client:
        assert read_answer(client)[0] == 400


def test_a_client_that_drips_is_served_all_the_same(server):
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in completion(1):
            client.sendall(bytes([byte]))
        assert read_answer(client)[0] == 200


@pytest.mark.slow
def test_where_descriptors_run_out_idle_connections_make_room(start_stepping):
    server = start_stepping(workers=1)
    pid = server.rows()[0]["pid"]
    num_open = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (num_open + 12, num_open + 12))
    idle = [server.connect() for _ in range(60)]
    for _ in range(10):
        assert server.get("/livez", timeout_s=10)[0] == 200
    answers = send_all(server.port, [completion(1)] * 3, [0.1] * 3)
    assert {answer.status for answer in answers} == {200}
    for client in idle:
        client.close()
    assert "Traceback" not in server.log()
