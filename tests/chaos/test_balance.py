"""Requests spread over workers nearly as well as if all workers took them from one queue."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import pytest

from tests.service.crowd import completion, send_all

pytestmark = pytest.mark.chaos

NUM_WORKERS = 4
NUM_REQUESTS = 600
LOAD = 0.7
TOKEN_S = 0.004
MIN_TOKENS, MAX_TOKENS = 25, 75


def test_two_long_requests_never_share_a_worker_while_another_is_idle(start_stepping):
    server = start_stepping(workers=2, num_ready=2)
    for attempt in range(50):
        answers = send_all(server.port, [completion(30)] * 2, [0, 0.05 * (attempt % 2)])
        assert sorted(answer.headers["x-worker"] for answer in answers) == ["0", "1"]


def test_waiting_is_hardly_longer_than_in_one_ideal_queue(start_stepping):
    server = start_stepping(
        {"STEP_TOKEN_S": str(TOKEN_S)}, workers=NUM_WORKERS, num_ready=NUM_WORKERS, max_queue=200, http_threads=64
    )
    send_all(server.port, [completion(MIN_TOKENS)] * NUM_WORKERS)
    dice = random.Random(5)
    mean_s = TOKEN_S * (MIN_TOKENS + MAX_TOKENS) / 2
    pauses_s = [dice.expovariate(LOAD * NUM_WORKERS / mean_s) for _ in range(NUM_REQUESTS)]
    requests = [completion(dice.randint(MIN_TOKENS, MAX_TOKENS)) for _ in range(NUM_REQUESTS)]
    answers = send_all(server.port, requests, pauses_s)
    assert {answer.status for answer in answers} == {200}
    timings = [answer.json()["timings"] for answer in answers]
    services_s = [(timing["total_ms"] - timing["queue_ms"]) / 1000 for timing in timings]
    waits_s = [answer.seconds - service_s for answer, service_s in zip(answers, services_s, strict=True)]
    wait_s, ideal_s = percentile_95(waits_s), percentile_95(ideal_waits_s([a.sent_s for a in answers], services_s))
    busy = sum(services_s) / NUM_WORKERS / (answers[-1].sent_s - answers[0].sent_s)
    print(f"load {busy:.2f}: 95% waited at most {wait_s:.3f} s, ideally {ideal_s:.3f} s ({wait_s / ideal_s:.2f} times)")
    assert wait_s <= 1.5 * ideal_s


def ideal_waits_s(arrivals_s: Sequence[float], services_s: Sequence[float]) -> list[float]:
    """Waiting times where every worker takes the oldest request as soon as it is free."""
    free_at_s = [0.0] * NUM_WORKERS
    waits_s = []
    for arrival_s, service_s in zip(arrivals_s, services_s, strict=True):
        start_s = max(arrival_s, heapq.heappop(free_at_s))
        waits_s.append(start_s - arrival_s)
        heapq.heappush(free_at_s, start_s + service_s)
    return waits_s


def percentile_95(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]
