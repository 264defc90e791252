"""Two replicas on two nodes behind one proxy: the contract, its bounds, and what a replica tells of itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter

import requests

from tests.anywhere.target import LONG
from tests.scale.cluster import Cluster
from tests.service.conftest import REPOSITORY, wait_for

NUM_CALLERS = 40
# Two replicas with one place to run and ten to wait each.
NUM_PLACES = 22
BODY = {"prompt": "def f(", "max_new_tokens": 8, "ignore_eos": True}


def test_the_contract_of_http_holds(two_nodes: Cluster):
    looks = [f"--look=http://{two_nodes.address(number)}:9500" for number in range(2)]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-x", "tests/anywhere", "--url", two_nodes.url, *looks]
    done = subprocess.run([*command, "-m", "not scale"], cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:]
    print(*(line for line in done.stdout.splitlines() if "free " in line or " passed" in line), sep="\n")


def test_exactly_as_many_are_admitted_as_there_are_places(two_nodes: Cluster):
    """The two that run are held until every other call is refused or waits: no place is free again before."""
    two_nodes.wait_until_serving(2)
    held = _hold_both(two_nodes)
    answers: list[requests.Response] = []
    barrier = threading.Barrier(NUM_CALLERS - len(held))

    def call() -> None:
        barrier.wait()
        answers.append(requests.post(f"{two_nodes.url}/complete", json=BODY, timeout=240))

    threads = [threading.Thread(target=call) for _ in range(NUM_CALLERS - len(held))]
    for thread in threads:
        thread.start()
    try:
        wait_for(
            lambda: sum(map(sum, _taken(two_nodes))) + len(answers) == NUM_CALLERS, "every call is told or waits", 120
        )
        assert _taken(two_nodes) == [(1, 10), (1, 10)]
        assert len(answers) == NUM_CALLERS - NUM_PLACES
    finally:
        for stream in held:
            stream.close()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.status_code == 503]
    statuses = Counter([answer.status_code for answer in answers] + [stream.status_code for stream in held])
    assert statuses == {200: NUM_PLACES, 503: NUM_CALLERS - NUM_PLACES}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert len({answer.headers["X-Instance"] for answer in answers if answer.status_code == 200}) == 2


def _hold_both(made: Cluster) -> list[requests.Response]:
    """A stream that does not end on each replica; what runs there when both have one."""
    held: list[requests.Response] = []
    while sum(running for running, _ in _taken(made)) < 2:
        held.append(requests.post(f"{made.url}/complete", json=LONG | {"stream": True}, stream=True, timeout=240))
        assert len(held) <= 4, "both replicas get work"
    return held


def _taken(made: Cluster) -> list[tuple[int, int]]:
    """Sequences that run and that wait on each replica."""
    looks = [requests.get(f"http://{made.address(number)}:9500/readyz", timeout=60).json() for number in range(2)]
    return [(row["num_running"], row["num_waiting"]) for look in looks for row in look["slots"]]


def test_the_command_shows_nodes_and_replicas(two_nodes: Cluster):
    found = json.loads(two_nodes.forklift(0, "status", "--json"))
    assert found["ready"] and [node["is_head"] for node in found["nodes"] if node["state"] == "ALIVE"].count(True) == 1
    assert {one["instance"] for one in found["replicas"]} >= two_nodes.instances()


def test_each_replica_shows_its_own_metrics_on_its_own_port(two_nodes: Cluster):
    for number in range(2):
        url = f"http://{two_nodes.address(number)}:9500"
        answer = requests.get(f"{url}/metrics", timeout=10)
        assert "forklift_requests_total" in answer.text and answer.headers["X-Instance"]
        assert requests.post(f"{url}/complete", json={"prompt": "a"}, timeout=10).status_code == 404


def test_nobody_talks_to_rays_processes_without_the_token(two_nodes: Cluster):
    answer = requests.get("http://127.0.0.1:8265/api/serve/applications/", timeout=10)
    assert answer.status_code in (401, 403)
