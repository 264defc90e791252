"""Six minutes of mixed load on two workers, a reload in the middle, SIGTERM at the end: nothing is lost.

    .venv/bin/python -m pytest -s -m chaos tests/chaos/test_endurance.py

FORKLIFT_ENDURANCE_S shortens it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter

import pytest

from tests.service.crowd import completion, post

pytestmark = pytest.mark.chaos

DURATION_S = float(os.environ.get("FORKLIFT_ENDURANCE_S", "360"))
NUM_CLIENTS = 8
PATIENCE_S = 60.0
# What a client may see of a server that is full, reloads or stops.
FINE = {"200", "200 stream", "400", "404", "503", "left", "stream told of its end"}
REQUESTS = [
    completion(8),
    completion(40, stream=True),
    completion(40, stream=True, n=2),
    post("/v1/completions", json.dumps({"prompt": "def f(", "max_tokens": 12}).encode()),
    post("/tokenize", b'{"text": "def f(a, b):"}'),
    post("/complete", b'{"prompt": '),
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


def outcome(port: int, dice: random.Random) -> str:
    """What one request came to: a status, or how the connection ended."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    except ConnectionRefusedError:
        return "refused"
    with connection:
        try:
            request = dice.choice(REQUESTS)
            connection.sendall(request)
            if dice.random() < 0.05:
                return "left"
            return verdict(read_all(connection))
        except OSError as error:
            return repr(error)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65_536):
        data += piece
    return data


def verdict(data: bytes) -> str:
    status = data[9:12].decode()
    if b"text/event-stream" not in data:
        return status if data else "closed without an answer"
    if b"data: [DONE]" in data:
        return "200 stream"
    return "stream told of its end" if b'"error"' in data else "stream cut"


def test_six_minutes_of_everything_lose_nothing(start_forklift, model_folder):
    server = start_forklift(
        model=model_folder("gpt2"), workers=2, num_ready=2, max_batch_size=4, max_queue=16, drain_timeout_s=20
    )
    seen: Counter[str] = Counter()
    is_over = threading.Event()

    def load(seed: int) -> None:
        dice = random.Random(seed)
        while not is_over.is_set():
            found = outcome(server.port, dice)
            seen[found] += 1
            if found == "refused":
                return

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(DURATION_S / 2)
    server.signal(signal.SIGHUP)
    time.sleep(DURATION_S / 2)
    assert not seen["refused"]
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit(60.0) == 0
    time.sleep(0.5)
    is_over.set()
    for thread in threads:
        thread.join()
    print(dict(sorted(seen.items())))
    # Each client ends with the one connection that is refused once nobody listens.
    assert seen.pop("refused") <= NUM_CLIENTS
    assert set(seen) <= FINE
    assert "Traceback" not in server.log()
