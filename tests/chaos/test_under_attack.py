"""Eight clients stream while an attacker repeats one fault at low priority: none of them fails or waits for long.

Figures are compared with the same number of harmless requests in the place of the attack. For a quiet machine::

    .venv/bin/python -m pytest -s -m chaos tests/chaos/test_under_attack.py

FORKLIFT_ATTACK_S (default 10) is how long each of the two phases takes, FORKLIFT_ATTACK_MODEL a model's folder.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import psutil
import pytest

from tests.chaos.attacks import ATTACKS
from tests.e2e.conftest import Forklift
from tests.service.conftest import REPOSITORY, server_starter

pytestmark = pytest.mark.chaos

PHASE_S = float(os.environ.get("FORKLIFT_ATTACK_S", "10"))
NUM_CLIENTS = 8
NUM_TOKENS = 120
MAX_RATIO, ENOUGH_S = 5.0, 0.25
LIVEZ_S = 1.0
MEMORY_RATIO = 1.2
MEMORY_PATIENCE_S = 60.0


@dataclass
class Seen:
    """What the well-behaved saw during one phase."""

    gaps_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    probes_s: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.gaps_s, n=100)[98]


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder):
    model = os.environ.get("FORKLIFT_ATTACK_MODEL") or model_folder("qwen2")
    starter = server_starter(tmp_path_factory.mktemp("attacked"), Forklift)
    yield next(starter)(model=model, workers=1, max_batch_size=16, max_queue=200, body_timeout_s=5)
    next(starter, None)


def stream(port: int, seen: Seen) -> None:
    """One request; the time between each two pieces of text."""
    body = {"prompt": "def f(", "max_new_tokens": NUM_TOKENS, "stream": True, "ignore_eos": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/complete", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            seen.failures.append(f"status {response.status}")
            return
        last_s, is_done = None, False
        while line := response.readline():
            if line.startswith(b"data:"):
                now_s = time.monotonic()
                if last_s is not None:
                    seen.gaps_s.append(now_s - last_s)
                last_s = now_s
                is_done = line.startswith(b"data: [DONE]")
        if not is_done:
            seen.failures.append("cut")
    except OSError as error:
        seen.failures.append(repr(error))
    finally:
        connection.close()


def phase(server, name: str, kind: str) -> Seen:
    """Clients and probes beside ``kind`` (the attack, or as many harmless requests)."""
    seen, end_s = Seen(), time.monotonic() + PHASE_S

    def behave_well() -> None:
        while time.monotonic() < end_s:
            stream(server.port, seen)

    def probe() -> None:
        while time.monotonic() < end_s:
            started_s = time.monotonic()
            assert server.get("/livez")[0] == 200
            seen.probes_s.append(time.monotonic() - started_s)
            time.sleep(0.1)

    command = [sys.executable, "-m", "tests.chaos.attacks", str(server.port), name, kind, str(PHASE_S)]
    attacker = subprocess.Popen(command, cwd=REPOSITORY)
    threads = [threading.Thread(target=behave_well) for _ in range(NUM_CLIENTS)] + [threading.Thread(target=probe)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attacker.wait(timeout=PHASE_S + 60)
    return seen


def resident_bytes(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


def resident_bytes_at_rest(pid: int, limit_bytes: float) -> int:
    end_s = time.monotonic() + MEMORY_PATIENCE_S
    while (found := resident_bytes(pid)) > limit_bytes and time.monotonic() < end_s:
        time.sleep(0.5)
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_well_behaved_clients_are_served_beside_an_attack(server, name):
    pid = server.rows()[0]["pid"]
    beside_harmless = phase(server, name, "harmless")
    before_bytes = resident_bytes(pid)
    beside_attack = phase(server, name, "attack")
    after_bytes = resident_bytes_at_rest(pid, before_bytes * MEMORY_RATIO)
    row = {
        "attack": name,
        "failures": len(beside_attack.failures),
        "first_failures": beside_attack.failures[:2],
        "p99_gap_harmless_ms": round(beside_harmless.p99_s * 1000, 1),
        "p99_gap_attack_ms": round(beside_attack.p99_s * 1000, 1),
        "livez_max_ms": round(max(beside_attack.probes_s) * 1000, 1),
        "resident_mb": [round(before_bytes / 1e6), round(after_bytes / 1e6)],
    }
    print(json.dumps(row))
    assert not beside_attack.failures
    assert beside_attack.p99_s <= max(MAX_RATIO * beside_harmless.p99_s, ENOUGH_S)
    assert max(beside_attack.probes_s) <= LIVEZ_S
    assert after_bytes <= before_bytes * MEMORY_RATIO
    assert server.rows()[0]["pid"] == pid
