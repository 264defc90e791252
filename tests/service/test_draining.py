"""What a server that shuts down tells those who come: nobody waits, nobody is reset."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter

import pytest

from tests.service.conftest import wait_for
from tests.service.crowd import completion
from tests.service.test_stopping import STREAM, read_all, running


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_while_a_long_request_runs_newcomers_are_refused_at_once_and_probes_answered(start_server, workers):
    server = start_server(workers=workers, num_ready=workers)
    with server.connect(STREAM % 3) as client:
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in server.log(), "the signal")
        wait_for(lambda: server.request("POST", "/echo", body=b"x")[0] == 503, "the drain")
        for _ in range(5):
            status, answer = server.request("POST", "/echo", body=b"x", timeout_s=2)
            assert (status, answer["error"]["code"]) == (503, "shutting_down")
            assert server.get("/livez", timeout_s=2)[0] == 200
        assert {row["state"] for row in server.rows() if row["pid"]} == {"draining"}
        assert b"[DONE]" in read_all(client)
    assert server.wait_for_exit() == 0


@pytest.mark.slow
def test_readyz_says_draining_with_503(start_stepping):
    server = start_stepping({"STEP_TOKEN_S": "0.05"}, workers=1)
    with server.connect(completion(60, stream=True)) as client:
        wait_for(lambda: server.in_hand() == (1, 0), "the stream")
        server.signal(signal.SIGTERM)
        _, body = wait_for(lambda: (found := server.get("/readyz"))[0] == 503 and found, "the drain")
        assert body["state"] == "draining"
        assert b"[DONE]" in read_all(client)
    assert server.wait_for_exit() == 0


@pytest.mark.slow
def test_a_body_that_is_still_coming_is_refused_with_its_head(start_server):
    server = start_server(workers=1)
    with server.connect(STREAM % 2) as client:
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        wait_for(lambda: server.request("POST", "/echo", body=b"x")[0] == 503, "the drain")
        with server.connect(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n") as late:
            assert b'"code": "shutting_down"' in read_all(late)
        assert b"[DONE]" in read_all(client)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_nobody_is_reset_at_the_end(start_server, workers):
    """A connection is refused or answered: what the kernel has accepted for the server is never lost."""
    server = start_server(workers=workers, num_ready=workers)
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            seen[outcome(server.port)] += 1

    threads = [threading.Thread(target=knock) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen.pop("200") and seen.pop("refused")
    seen.pop("503", None)
    assert not seen


def outcome(port: int) -> str:
    try:
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
    except ConnectionRefusedError:
        time.sleep(0.01)
        return "refused"
    with client:
        try:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")
            return read_all(client)[9:12].decode() or "closed"
        except OSError as error:
            return repr(error)
