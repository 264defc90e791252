"""Noticing that a caller has left, without taking a byte from the connection or waiting for one."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from app.http.application.connection import CLIENT_GONE, HttpCaller, is_client_gone
from tests.service.conftest import RESET_ON_CLOSE
from tests.tls import make_pair
from tests.waiting import wait_until


@pytest.fixture
def ends():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    yield server, client
    for end in (server, client, listener):
        end.close()


@pytest.fixture
def tls_ends(ends, tmp_path):
    """Both ends after their handshake."""
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    shaken = []
    thread = threading.Thread(target=lambda: shaken.append(context.wrap_socket(ends[0], server_side=True)))
    thread.start()
    client = pair.context.wrap_socket(ends[1], server_hostname="127.0.0.1")
    thread.join()
    yield shaken[0], client
    shaken[0].close()
    client.close()


@pytest.fixture(params=["ends", "tls_ends"])
def any_ends(request):
    """Both ends, without TLS and with it."""
    return request.getfixturevalue(request.param)


def is_gone(server):
    """The answer; fails where it has to be waited for."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(is_client_gone({"gunicorn.socket": server})), daemon=True)
    thread.start()
    thread.join(2)
    assert answers, "the check blocks"
    return answers[0]


@pytest.mark.parametrize("timeout_s", [None, 0.0, 30.0])
def test_a_silent_caller_is_there_whatever_the_sockets_timeout(any_ends, timeout_s):
    server, _ = any_ends
    server.settimeout(timeout_s)
    assert not is_gone(server)
    assert server.gettimeout() == timeout_s


@pytest.mark.parametrize("timeout_s", [None, 0.0, 30.0])
def test_a_caller_who_closed_is_gone(any_ends, timeout_s):
    server, client = any_ends
    server.settimeout(timeout_s)
    client.close()
    wait_until(lambda: is_gone(server))


def test_a_caller_who_reset_the_connection_is_gone(ends):
    server, client = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()
    assert is_gone(server)


def test_a_caller_who_sent_more_is_there_and_its_bytes_stay(ends):
    server, client = ends
    client.sendall(b"x")
    assert not is_gone(server)
    assert server.recv(10) == b"x"


def test_a_connection_that_we_closed_ourselves_has_no_caller(ends):
    ends[0].close()
    assert is_gone(ends[0])


def test_without_gunicorns_socket_nobody_is_taken_for_gone():
    assert not is_client_gone({})
    assert not is_client_gone({"gunicorn.socket": object()})


@pytest.mark.parametrize("has_left", [True, False])
def test_a_server_that_can_tell_is_asked(has_left):
    assert HttpCaller("r", {CLIENT_GONE: lambda: has_left}).is_gone() is has_left


def test_a_tls_caller_who_says_goodbye_is_gone(tls_ends):
    server, client = tls_ends
    client.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    assert is_gone(server)


def test_a_tls_caller_who_sent_more_is_there(tls_ends):
    server, client = tls_ends
    client.sendall(b"x")
    assert not is_gone(server)
