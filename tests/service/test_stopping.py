"""SIGTERM drains, SIGINT hurries; both end with exit code 0."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.processes import is_alive
from tests.service.conftest import wait_for
from tests.thinned import few_of

STREAM = b"GET /stream?s=%d HTTP/1.1\r\nHost: localhost\r\n\r\n"


def read_all(sock) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def running(server, number):
    return sum(row["num_running"] for row in server.rows()) == number


def test_running_requests_finish_after_sigterm(start_server):
    server = start_server(workers=2, num_ready=2)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(server.get, "/work?s=1.5") for _ in range(2)]
        with server.connect(STREAM % 1) as client:
            wait_for(lambda: running(server, 3), "three running requests")
            server.signal(signal.SIGTERM)
            assert b"[DONE]" in read_all(client)
        assert [answer.result()[0] for answer in answers] == [200, 200]
    assert server.wait_for_exit() == 0


def test_a_stream_that_does_not_finish_in_time_gets_an_error_event(start_server):
    server = start_server(workers=1, drain_timeout_s=1)
    with server.connect(STREAM % 60) as client:
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        data = read_all(client)
    assert b'"code": "shutting_down"' in data
    assert b"[DONE]" not in data
    assert server.wait_for_exit() == 0


@pytest.mark.parametrize("number", few_of([signal.SIGINT, signal.SIGQUIT], 1))
def test_an_interrupt_ends_running_streams_within_five_seconds(start_server, number):
    server = start_server(workers=2, num_ready=2)
    clients = [server.connect(STREAM % 60) for _ in range(4)]
    wait_for(lambda: running(server, 4), "four streams")
    server.signal(number)
    assert server.wait_for_exit(5.0) == 0
    for client in clients:
        assert b'"code": "shutting_down"' in read_all(client)
        client.close()


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_a_client_that_reads_nothing(start_server):
    server = start_server(workers=1)
    with server.connect(b"GET /stream?s=60&bytes=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGINT)
        assert server.wait_for_exit(5.0) == 0


@pytest.mark.slow
def test_an_interrupt_while_draining_hurries(start_server):
    server = start_server(workers=1)
    with server.connect(STREAM % 60) as client:
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        time.sleep(0.5)
        server.signal(signal.SIGINT)
        assert server.wait_for_exit(5.0) == 0
        assert b'"code": "shutting_down"' in read_all(client)


def test_sigterm_while_loading_ends_at_once(start_server):
    server = start_server({"DOUBLE_LOAD_S": "60"}, workers=2, num_ready=0)
    server.wait_until_listening()
    wait_for(lambda: server.get("/livez")[0] == 200, "a worker")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit(5.0) == 0


@pytest.mark.slow
def test_silent_connections_do_not_hold_up_the_end(start_server):
    server = start_server(workers=1)
    with server.connect():
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit(5.0) == 0


def test_who_had_just_connected_is_answered_before_the_worker_leaves(start_server):
    server = start_server(workers=1)
    with server.connect() as client:
        assert server.get("/livez")[0] == 200
        server.signal(signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in server.log(), "the signal")
        time.sleep(0.3)
        client.sendall(b"GET /work?s=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"code": "shutting_down"' in read_all(client)
    assert server.wait_for_exit(5.0) == 0


@pytest.mark.slow
def test_a_request_that_arrives_completely_while_draining_is_refused_politely(start_server):
    server = start_server(workers=1)
    with server.connect(STREAM % 2) as client, server.connect(b"GET /work?s=0 HTTP/1.1\r\nHost") as late:
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in server.log(), "the signal")
        time.sleep(0.3)
        late.sendall(b": x\r\n\r\n")
        assert b'"code": "shutting_down"' in read_all(late)
        assert b"[DONE]" in read_all(client)
    assert server.wait_for_exit() == 0


def test_workers_end_when_their_master_is_killed(start_server):
    server = start_server(workers=2, num_ready=2)
    pids = [row["pid"] for row in server.rows()]
    server.process.kill()
    server.wait_for_exit()
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the end of the workers")
