"""Callers that leave in every way that TCP and TLS know, and callers that only close their sending side."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from tests.service.conftest import RESET_ON_CLOSE, SteppingServer, server_starter, wait_for
from tests.service.crowd import completion
from tests.service.test_tls import TlsServer, tls_starter
from tests.thinned import few_of

NUM_TOKENS = 2000
SETTINGS = {"workers": 1, "max_batch_size": 4, "max_new_tokens": 10_000, "max_context_tokens": 20_000}
STEP = {"STEP_TOKEN_S": "0.02"}


class TlsStepping(SteppingServer, TlsServer):
    scheme = "https"
    connect = TlsServer.connect


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    starter = server_starter(tmp_path_factory.mktemp("plain"), SteppingServer)
    yield next(starter)(STEP, **SETTINGS)
    next(starter, None)


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    starter = tls_starter(tmp_path_factory.mktemp("secure"), kind=TlsStepping)
    yield next(starter)(STEP, **SETTINGS)
    next(starter, None)


@pytest.fixture(params=["plain", "secure"])
def server(request):
    return request.getfixturevalue(request.param)


def close(client):
    client.close()


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()


def say_goodbye(client):
    """TLS's own end, with what is below left open for a while."""
    if isinstance(client, ssl.SSLSocket):
        client.settimeout(0.05)
        with pytest.raises((OSError, ValueError)):
            client.unwrap()
            raise OSError("no answer is fine too")
    else:
        client.close()


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("extra", few_of([b"", b"x" * 100_000, b"\r\n", b"GET / HTTP/1.1\r\n\r\n" * 10], 1))
@pytest.mark.parametrize("leave", few_of([close, reset, say_goodbye], 2))
def test_a_caller_who_leaves_ends_its_job_whatever_it_sent_before(server, is_streamed, extra, leave):
    name = f"gone-{time.monotonic_ns()}"
    client = server.connect(completion(NUM_TOKENS, name, stream=is_streamed))
    wait_for(lambda: name in server.jobs("started"), "the job")
    time.sleep(0.2)
    client.sendall(extra)
    leave(client)
    tokens = wait_for(lambda: server.jobs("ended").get(name), "the end of the job", 10.0)
    assert tokens < NUM_TOKENS / 4
    client.close()
    wait_for(lambda: server.in_hand() == (0, 0), "the place")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_caller_who_closes_its_sending_side_with_its_request_gets_the_answer(plain, is_streamed):
    with plain.connect() as client:
        # The FIN travels with the last bytes, so that it is there when they are read.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        client.sendall(completion(60, stream=is_streamed))
        client.shutdown(socket.SHUT_WR)
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert data.startswith(b"HTTP/1.1 200")
    assert (b"[DONE]" in data) if is_streamed else (b'"finish_reason": "length"' in data)


def test_a_caller_who_waits_in_the_queue_and_leaves_behind_a_stray_line_gives_its_place_back(plain):
    running = [plain.connect(completion(NUM_TOKENS)) for _ in range(4)]
    wait_for(lambda: plain.in_hand()[0] == 4, "all places to be taken")
    waiting = plain.connect(completion(1, "stray"))
    wait_for(lambda: plain.in_hand() == (4, 1), "the queue")
    time.sleep(0.2)
    waiting.sendall(b"\r\n")
    waiting.close()
    wait_for(lambda: plain.in_hand() == (4, 0), "the place")
    for client in running:
        client.close()
    wait_for(lambda: plain.in_hand() == (0, 0), "the places")
    assert "stray" not in plain.jobs("started")
