"""Two replicas on two nodes behind one proxy: the contract, its bounds, and what a replica tells of itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter

import requests

from tests.scale.cluster import Cluster
from tests.service.conftest import REPOSITORY

NUM_CALLERS = 40
# Two replicas with one place to run and ten to wait each.
NUM_PLACES = 22


def test_the_contract_of_http_holds(two_nodes: Cluster):
    looks = [f"--look=http://{two_nodes.address(number)}:9500" for number in range(2)]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-x", "tests/anywhere", "--url", two_nodes.url, *looks]
    done = subprocess.run([*command, "-m", "not scale"], cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:]
    print(*(line for line in done.stdout.splitlines() if "free " in line or " passed" in line), sep="\n")


def test_exactly_as_many_are_admitted_as_there_are_places(two_nodes: Cluster):
    two_nodes.wait_until_serving(2)
    answers: list[requests.Response] = []
    barrier = threading.Barrier(NUM_CALLERS)

    def call() -> None:
        barrier.wait()
        body = {"prompt": "def f(", "max_new_tokens": 200, "ignore_eos": True}
        answers.append(requests.post(f"{two_nodes.url}/complete", json=body, timeout=120))

    threads = [threading.Thread(target=call) for _ in range(NUM_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert Counter(answer.status_code for answer in answers) == {200: NUM_PLACES, 503: NUM_CALLERS - NUM_PLACES}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert len({answer.headers["X-Instance"] for answer in answers}) == 2


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
