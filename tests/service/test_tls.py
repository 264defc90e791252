"""HTTPS without anything in front: real Gunicorn, real handshakes."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.service.conftest import Server, SteppingServer, server_starter, wait_for
from tests.service.crowd import completion
from tests.service.test_stopping import STREAM, read_all, running
from tests.tls import Pair, make_pair


class TlsServer(Server):
    """The processes alone, behind TLS; ``pair`` is set by the fixture."""

    scheme = "https"
    pair: Pair

    def http_connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_s, context=self.pair.context)

    def bare(self, data: bytes = b"") -> socket.socket:
        """A connection without TLS."""
        return Server.connect(self, data)

    def connect(self, data: bytes = b"") -> ssl.SSLSocket:
        sock = self.pair.context.wrap_socket(self.bare(), server_hostname="127.0.0.1")
        sock.sendall(data)
        return sock


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_starter(folder, authority=None, kind=TlsServer):
    """Yields a function that starts servers with a certificate; ``server.pair`` has its files."""
    pair = make_pair(folder / "pair", authority)
    starter = server_starter(folder, type("Kind", (kind,), {"pair": pair}))
    start = next(starter)
    yield lambda *arguments, **settings: start(*arguments, **(pair.settings | settings))
    next(starter, None)


@pytest.fixture
def start_tls(tmp_path, authority):
    yield from tls_starter(tmp_path, authority)


@pytest.fixture(scope="module")
def plain_tls(tmp_path_factory, authority):
    """One ready worker with default settings, for tests that leave no trace in it."""
    starter = tls_starter(tmp_path_factory.mktemp("plain"), authority)
    yield next(starter)(workers=1)
    next(starter, None)


class TlsStepping(TlsServer, SteppingServer):
    """The real application on the stand-in for the engine, behind TLS."""

    rows = SteppingServer.rows


@pytest.fixture
def stepping_tls(tmp_path, authority):
    """A ready server of that kind."""
    starter = tls_starter(tmp_path, authority, TlsStepping)
    yield next(starter)(workers=1)
    next(starter, None)


def test_answers_and_streams_arrive_whole(plain_tls):
    assert plain_tls.get("/livez")[0] == 200
    assert plain_tls.request("POST", "/echo", body=b"y" * 300_000)[1] == {"body": "y" * 300_000, "length": 300_000}
    with plain_tls.connect(b"GET /stream?s=0.2&bytes=20000 HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        assert b"data: [DONE]" in read_all(client)


def test_the_end_of_an_answer_is_told_by_tls_itself(plain_tls):
    """With HTTP/1.0 the end of the connection is the end of the answer: a client must see that it was meant."""
    context = plain_tls.pair.context
    sock = context.wrap_socket(plain_tls.bare(), server_hostname="127.0.0.1", suppress_ragged_eofs=False)
    with sock:
        sock.sendall(b"GET /stream?s=0.1 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert read_all(sock).endswith(b"data: [DONE]\n\n")


@pytest.mark.slow
def test_silent_and_dripping_clients_cost_no_thread(start_tls):
    server = start_tls(workers=1, http_threads=2)
    silent = [server.bare() for _ in range(20)]
    greeting = [server.bare(b"\x16\x03\x01") for _ in range(20)]
    half = [server.connect(b"GET /livez HTTP/1.1\r\nHo") for _ in range(20)]
    assert server.get("/livez", timeout_s=10)[0] == 200
    half[0].sendall(b"st: x\r\n\r\n")
    assert b'"pid"' in read_all(half[0])
    for sock in silent + greeting + half:
        sock.close()
    wait_for(lambda: server.rows()[0]["num_connections"] <= 1, "the end of the other connections")


@pytest.mark.slow
def test_a_client_that_stalls_in_its_handshake_is_closed_at_the_deadline(start_tls):
    server = start_tls(workers=1, body_timeout_s=1)
    with server.bare(b"\x16\x03\x01\x02\x00") as client:
        assert client.recv(1) == b""


@pytest.mark.slow  # as over plain connections
def test_a_request_that_stops_halfway_gets_408(start_tls):
    server = start_tls(workers=1, body_timeout_s=1)
    with server.connect(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc") as client:
        assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_plain_http_is_told_that_this_port_speaks_https(plain_tls):
    with plain_tls.bare(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"https_required" in answer
    assert plain_tls.get("/livez")[0] == 200


def test_noise_and_leaving_early_do_no_harm(plain_tls):
    for data in (b"\x00" * 50, b"\x16\x03\x01\x00\x05hello", os.urandom(500)):
        with plain_tls.bare(data):
            pass
    for _ in range(20):
        with plain_tls.connect(b"GET /liv"):
            pass
    assert plain_tls.get("/livez")[0] == 200
    assert "Traceback" not in plain_tls.log()


def test_a_client_that_does_not_trust_the_certificate_does_no_harm(plain_tls):
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain_tls.bare(), server_hostname="127.0.0.1")
    assert plain_tls.get("/livez")[0] == 200


@pytest.mark.slow  # as over plain connections
def test_sigterm_lets_a_stream_finish(start_tls):
    server = start_tls(workers=2, num_ready=2)
    with server.connect(STREAM % 1) as client, server.bare(), server.connect():
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        assert b"[DONE]" in read_all(client)
        assert server.wait_for_exit(10) == 0


@pytest.mark.slow  # as over plain connections
def test_a_stream_that_does_not_finish_in_time_gets_an_error_event(start_tls):
    server = start_tls(workers=1, drain_timeout_s=1)
    with server.connect(STREAM % 60) as client:
        wait_for(lambda: running(server, 1), "the stream")
        server.signal(signal.SIGTERM)
        assert b'"code": "shutting_down"' in read_all(client)
    assert server.wait_for_exit() == 0


@pytest.mark.slow  # as over plain connections
def test_a_client_that_reads_nothing_is_dropped(start_tls):
    server = start_tls(workers=1, write_timeout_s=1)
    with server.connect(b"GET /stream?s=60&bytes=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        wait_for(lambda: running(server, 1), "the stream")
        wait_for(lambda: running(server, 0), "its end")


@pytest.mark.slow
def test_a_renewed_certificate_is_used_without_a_restart(start_tls, tmp_path, authority):
    server = start_tls(workers=1)
    before = served_certificate(server)
    renewed = make_pair(tmp_path / "renewed", authority)
    renewed.cert.replace(server.pair.cert)
    assert served_certificate(server) == before, "a certificate whose key has not come yet is not used"
    renewed.key.replace(server.pair.key)
    assert served_certificate(server) != before
    assert "certificate_renewed" in server.log()


@pytest.mark.slow
def test_a_renewed_key_with_a_password_asks_nobody_and_leaves_the_old_pair_in_service(start_tls, tmp_path):
    """Also for a worker that is born while the key cannot be read."""
    server = start_tls(workers=1)
    before = served_certificate(server)
    server.pair.key.write_bytes(locked(server.pair.key.read_bytes()))
    assert [served_certificate(server) for _ in range(3)] == [before] * 3
    assert server.log().count("certificate_not_renewed") == 1
    [row] = server.rows()
    os.kill(row["pid"], signal.SIGKILL)
    wait_for(lambda: is_replaced(server, row["pid"]), "another worker")
    assert served_certificate(server) == before


@pytest.mark.slow
def test_a_pipe_in_place_of_the_renewed_certificate_is_not_waited_for(start_tls, tmp_path):
    server = start_tls(workers=1)
    before = served_certificate(server)
    server.pair.cert.unlink()
    os.mkfifo(server.pair.cert)
    assert served_certificate(server) == before


def is_replaced(server, old_pid) -> bool:
    try:
        [row] = server.rows()
    except OSError:
        return False
    return row["state"] == "ready" and row["pid"] not in (None, old_pid)


def locked(key: bytes) -> bytes:
    """The same private key, in need of a password."""
    private = serialization.load_pem_private_key(key, None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def served_certificate(server) -> bytes | None:
    with server.connect() as client:
        return client.getpeercert(binary_form=True)


def test_a_wrong_key_stops_the_start_with_one_line(start_tls, tmp_path):
    server = start_tls(num_ready=0, tls_key=make_pair(tmp_path / "other").key)
    assert server.wait_for_exit() == 3
    [line] = [line for line in server.log().splitlines() if line]
    assert line.startswith("forklift: the private key ")


@pytest.mark.slow
def test_the_sync_worker_class_speaks_tls_too(start_tls):
    server = start_tls({"DOUBLE_WORKER_CLASS": "sync"}, workers=1)
    assert server.get("/livez")[0] == 200


def test_a_client_that_leaves_stops_its_generation(stepping_tls):
    with stepping_tls.connect(completion(400, "gone")):
        wait_for(lambda: stepping_tls.in_hand()[0] == 1, "the generation")
    assert wait_for(lambda: stepping_tls.jobs("ended"), "its end")["gone"] < 400
