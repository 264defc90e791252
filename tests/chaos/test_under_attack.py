"""Eight clients stream while an attacker repeats one fault at low priority: none of them fails or waits for long.

Figures are compared with the same number of harmless requests in the place of the attack. For a quiet machine::

    .venv/bin/python -m pytest -s -m chaos tests/chaos/test_under_attack.py

FORKLIFT_ATTACK_S (default 10) is how long each of the two phases takes, FORKLIFT_ATTACK_MODEL a model's folder.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos.attacks import ATTACKS
from tests.chaos.guessing import API_KEYS, SECRET, WELL_BEHAVED_KEY
from tests.chaos.stopping import STOPPED_SLOT
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


HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {WELL_BEHAVED_KEY}"}


@dataclass
class Seen:
    """What the well-behaved saw during one phase, and what the attacker found; not what a stopped worker's clients saw.

    Gaps are those between pieces of text; failures are everybody's.
    """

    gaps_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    probes_s: list[float] = field(default_factory=list)
    num_reused: int = 0
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.gaps_s, n=100)[98]


class Stopping(Forklift):
    """Two workers, one of which a test can stop while it holds the board's lock."""

    arguments = ("-c", "tests/chaos/gunicorn_stopping.py", "wsgi:app")

    def __init__(self, folder: Path, environ: dict[str, str]):
        self.order = str(folder / "stop")
        super().__init__(folder, environ | {"STOP_FILE": self.order})


@pytest.fixture(scope="module")
def server_of(tmp_path_factory, model_folder):
    """The server of a kind, started when it is first asked for."""
    model = os.environ.get("FORKLIFT_ATTACK_MODEL") or model_folder("qwen2")
    common = {"model": model, "max_batch_size": 16, "max_queue": 200, "body_timeout_s": 5}
    starters = {
        kind: server_starter(tmp_path_factory.mktemp(kind), Stopping if kind == "pair" else Forklift)
        for kind in ("plain", "keys", "pair")
    }

    @cache
    def start(kind):
        own = {"plain": {"workers": 1}, "keys": {"workers": 1, "api_keys": API_KEYS}}
        return next(starters[kind])(**common, **own.get(kind, {"workers": 2, "num_ready": 2}))

    yield start
    for starter in starters.values():
        next(starter, None)


def stream(server, prompt: str, seen: Seen) -> None:
    """One request; the time between each two pieces of text."""
    body = {"prompt": prompt, "max_new_tokens": NUM_TOKENS, "stream": True, "ignore_eos": True}
    connection = server.http_connection(timeout_s=60)
    try:
        connection.request("POST", "/complete", json.dumps(body), HEADERS)
        response = connection.getresponse()
        if response.status != 200:
            seen.failures.append(f"status {response.status}")
            return
        counts = is_counted(server, int(response.headers["X-Worker"]))
        last_s, is_done = None, False
        while line := response.readline():
            if line.startswith(b"data:"):
                now_s = time.monotonic()
                if last_s is not None and counts:
                    seen.gaps_s.append(now_s - last_s)
                last_s = now_s
                is_done = line.startswith(b"data: [DONE]")
                seen.num_reused += b'"cached_tokens"' in line and b'"cached_tokens": 0' not in line
        if not is_done:
            seen.failures.append("cut")
    except OSError as error:
        seen.failures.append(repr(error))
    finally:
        connection.close()


def is_counted(server, slot: int) -> bool:
    return not isinstance(server, Stopping) or slot != STOPPED_SLOT


def probe(server, seen: Seen) -> None:
    """A probe that the stopped worker had taken up already waits with it."""
    started_s = time.monotonic()
    connection = server.http_connection(timeout_s=60)
    try:
        connection.request("GET", "/livez")
        response = connection.getresponse()
        if response.status != 200:
            seen.failures.append(f"probe {response.status}")
        if is_counted(server, int(response.headers["X-Worker"])):
            seen.probes_s.append(time.monotonic() - started_s)
    except OSError as error:
        seen.failures.append(f"probe {error!r}")
    finally:
        connection.close()


def phase(server, name: str, kind: str) -> Seen:
    """Clients and probes beside ``kind`` (the attack, or as many harmless requests)."""
    seen, end_s = Seen(), time.monotonic() + PHASE_S
    prompt = SECRET if ATTACKS[name].server == "keys" else "def f("
    # As many clients of the other worker as there are elsewhere.
    num_clients = 2 * NUM_CLIENTS if isinstance(server, Stopping) else NUM_CLIENTS

    def behave_well() -> None:
        while time.monotonic() < end_s:
            stream(server, prompt, seen)

    def look() -> None:
        while time.monotonic() < end_s:
            probe(server, seen)
            time.sleep(0.1)

    command = [sys.executable, "-m", "tests.chaos.attacks", str(server.port), name, kind, str(PHASE_S)]
    environ = os.environ | {"STOP_FILE": getattr(server, "order", "")}
    attacker = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, text=True)
    threads = [threading.Thread(target=behave_well) for _ in range(num_clients)] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told, _ = attacker.communicate(timeout=PHASE_S + 60)
    seen.found = json.loads(told)
    return seen


def resident_bytes(pids: list[int]) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def resident_bytes_at_rest(pids: list[int], limit_bytes: float) -> int:
    end_s = time.monotonic() + MEMORY_PATIENCE_S
    while (found := resident_bytes(pids)) > limit_bytes and time.monotonic() < end_s:
        time.sleep(0.5)
    return found


def pids_of(server) -> list[int]:
    return [row["pid"] for row in server.rows()]


@pytest.mark.parametrize("name", ATTACKS)
def test_well_behaved_clients_are_served_beside_an_attack(server_of, name):
    server = server_of(ATTACKS[name].server)
    pids = pids_of(server)
    beside_harmless = phase(server, name, "harmless")
    before_bytes = resident_bytes(pids)
    beside_attack = phase(server, name, "attack")
    after_bytes = resident_bytes_at_rest(pids, before_bytes * MEMORY_RATIO)
    row = {
        "attack": name,
        "failures": len(beside_attack.failures),
        "first_failures": beside_attack.failures[:2],
        "p99_gap_harmless_ms": round(beside_harmless.p99_s * 1000, 1),
        "p99_gap_attack_ms": round(beside_attack.p99_s * 1000, 1),
        "livez_max_ms": round(max(beside_attack.probes_s) * 1000, 1),
        "resident_mb": [round(before_bytes / 1e6), round(after_bytes / 1e6)],
    }
    print(json.dumps(row | beside_attack.found))
    assert not beside_attack.failures
    assert beside_attack.p99_s <= max(MAX_RATIO * beside_harmless.p99_s, ENOUGH_S)
    assert max(beside_attack.probes_s) <= LIVEZ_S
    assert after_bytes <= before_bytes * MEMORY_RATIO
    assert pids_of(server) == pids
    JUDGES.get(name, lambda seen: None)(beside_attack)


def nothing_of_another_key_is_told(seen: Seen) -> None:
    """Though the well-behaved find their own prompt read."""
    assert seen.found["num_guesses"] > 0 < seen.num_reused
    assert seen.found["cached_tokens_max"] == 0


def the_lock_was_held(seen: Seen) -> None:
    assert seen.found["num_stops"] == seen.found["num_locked"] > 0


JUDGES = {"E6 another key's prefix": nothing_of_another_key_is_told, "E8 stopped in the lock": the_lock_was_held}
