"""Clients that do everything wrong at once; afterwards the same workers are there, with nothing in hand."""

from __future__ import annotations

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.service.conftest import RESET_ON_CLOSE, num_sockets, wait_for

DURATION_S = 4.0
NUM_CLIENTS = 16
REQUESTS = [
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /work?s=0.02 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /stream?s=0.3&bytes=20000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /breaks HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n" + b"a" * 3000,
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + b"a" * 300_000,
    b"\x16\x03\x01",
]


@pytest.mark.slow
def test_workers_survive_clients_that_do_everything_wrong(start_server):
    server = start_server(workers=2, num_ready=2, body_timeout_s=1, write_timeout_s=1)
    pids = [row["pid"] for row in server.rows()]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        list(pool.map(lambda seed: misbehave(server, random.Random(seed)), range(NUM_CLIENTS)))
    wait_for(lambda: in_hand(server) == 1, "the counters to show only the request that reads them")
    assert [row["pid"] for row in server.rows()] == pids
    wait_for(lambda: max(num_sockets(pid) for pid in pids) <= 2, "all connections to be closed")
    unexpected = [line for line in server.log().splitlines() if "Traceback" in line and "secret detail" not in line]
    assert not unexpected


def misbehave(server, dice: random.Random) -> None:
    end_s = time.monotonic() + DURATION_S
    while time.monotonic() < end_s:
        with suppress(OSError), server.connect() as client:
            send_badly(client, dice)
            leave_badly(client, dice)


def send_badly(client: socket.socket, dice: random.Random) -> None:
    """One request or several, perhaps cut, in pieces."""
    raw = dice.choice(REQUESTS) * dice.choice([1, 1, 1, 3])
    raw = raw[: dice.randrange(len(raw))] if dice.random() < 0.4 else raw
    while raw:
        size = dice.randint(1, len(raw))
        client.sendall(raw[:size])
        raw = raw[size:]
        time.sleep(dice.choice([0, 0, 0, 0.03]))


def leave_badly(client: socket.socket, dice: random.Random) -> None:
    """Reset, half-close, hold on, or read for a while."""
    way = dice.random()
    if way < 0.2:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    elif way < 0.4:
        client.shutdown(socket.SHUT_WR)
    elif way < 0.5:
        time.sleep(dice.random())
    if way > 0.3:
        client.settimeout(0.01 + dice.random())
        while client.recv(10_000):
            pass


def in_hand(server) -> int:
    return sum(row["num_running"] + row["num_waiting"] + row["num_connections"] for row in server.rows())
