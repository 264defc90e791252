"""Twenty thousand hostile bodies over every route: nothing fails that is not refused, and no worker is replaced."""

from __future__ import annotations

import http.client
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chaos.hostile_bodies import SEEDS, bodies
from tests.waiting import wait_until

pytestmark = pytest.mark.chaos
NUM_BODIES = 20_000
NUM_CALLERS = 8
# What a server says that cannot or will not now, as against one that failed.
HONEST = (501, 503, 504)


def send(port: int, path: str, raw: bytes) -> int:
    """The status of one request, answered to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", path, raw, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_no_body_makes_the_server_fail(start_forklift, model_folder):
    server = start_forklift(
        model=model_folder("qwen2"), max_batch_size=4, max_queue=64, max_new_tokens=6, default_new_tokens=6
    )
    before = [row["pid"] for row in server.rows()]
    statuses: Counter[int] = Counter()
    failed: list[tuple[int, str, bytes]] = []

    def run(case: tuple[str, bytes]) -> None:
        status = send(server.port, *case)
        statuses[status] += 1
        if status >= 500 and status not in HONEST:
            failed.append((status, *case))

    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        list(pool.map(run, bodies(NUM_BODIES, seed=15)))
    print("bodies by status:", sorted(statuses.items()))
    assert not failed
    assert statuses.total() == NUM_BODIES and statuses[200] > NUM_BODIES / 20
    assert {path for path, _ in SEEDS} >= {"/", "/complete", "/chat", "/infill", "/v1/completions", "/v1/embeddings"}
    assert [row["pid"] for row in server.rows()] == before
    wait_until(lambda: all(row["num_running"] == row["num_waiting"] == 0 for row in server.rows()), limit_s=60)
