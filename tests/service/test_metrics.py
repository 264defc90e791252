"""``/metrics`` of real workers: one answer for all of them, right after a kill too."""

from __future__ import annotations

import http.client
import os
import re
import signal
from pathlib import Path

import pytest

from tests.service.conftest import wait_for
from tests.service.crowd import completion, post, send_all

SAMPLE = re.compile(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)")


def scrape(server) -> dict[str, float]:
    """Samples by name and labels as they stand."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def folder_of(server) -> Path:
    """The folder that the server's processes share, as the first worker knows it."""
    pid = server.rows()[0]["pid"]
    entries = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return Path(next(entry.split()[-1] for entry in entries if "forklift-metrics-" in entry)).parent


COMPLETED = 'forklift_requests_total{route="/complete",status="200"}'


@pytest.mark.slow
def test_the_sums_over_workers_stay_right_when_one_is_killed(start_stepping):
    server = start_stepping(workers=2, num_ready=2)
    num_sent = 0
    # On a busy machine one of them may be so late that the other takes all.
    while num_sent < 400 and (num_sent == 0 or len(set(worker_of_jobs(server))) < 2):
        send_all(server.port, [completion(3)] * 20, [0.01] * 20)
        num_sent += 20
    assert scrape(server)[COMPLETED] == num_sent
    assert len(set(worker_of_jobs(server))) == 2
    pid = server.rows()[1]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: has_successor(server, pid), "a new worker")
    after = scrape(server)
    assert after[COMPLETED] == num_sent
    assert after["forklift_generation_tokens_total"] == 3 * num_sent
    assert after["forklift_prompt_tokens_total"] == num_sent
    assert after["forklift_e2e_request_latency_seconds_count"] == num_sent
    assert after['forklift_worker_restarts_total{slot="1"}'] == 1
    send_all(server.port, [completion(3)] * 20, [0.01] * 20)
    assert scrape(server)[COMPLETED] == num_sent + 20
    assert len(list(folder_of(server).glob("*.db"))) <= 4


def worker_of_jobs(server) -> list[str]:
    return [line.split()[-1] for line in server._jobs.read_text().splitlines()]


def has_successor(server, pid: int) -> bool:
    try:
        rows = server.rows()
    except (OSError, http.client.HTTPException):  # accepted by the worker that was just killed
        return False
    return rows[1]["pid"] not in (None, pid) and all(row["state"] == "ready" for row in rows)


def test_everything_that_the_contract_names_is_there(start_stepping):
    server = start_stepping({"STEP_TOKEN_S": "0.02"}, workers=1, max_queue=1)
    server.gate.touch()
    send_all(server.port, [completion(5)] * 4, on_answer=lambda num: server.gate.unlink() if num == 2 else None)
    samples = scrape(server)
    for name in ("request_queue_time", "time_to_first_token", "inter_token_latency", "e2e_request_latency"):
        assert samples[f"forklift_{name}_seconds_count"] == 2
        assert samples[f"forklift_{name}_seconds_sum"] > 0
    assert 0.02 <= samples["forklift_inter_token_latency_seconds_sum"] / 2 < 0.2
    assert samples['forklift_request_errors_total{reason="overloaded"}'] == 2
    assert samples['forklift_worker_state{slot="0",state="ready"}'] == 1
    assert samples['forklift_worker_state{slot="0",state="loading"}'] == 0
    assert samples['forklift_process_resident_memory_bytes{slot="0"}'] > 1e7
    assert samples['forklift_num_requests_running{slot="0"}'] == 0
    assert samples['forklift_num_requests_waiting{slot="0"}'] == 0
    assert samples["forklift_cached_prompt_tokens_total"] == 0


@pytest.mark.slow
def test_the_queue_is_seen_while_it_lasts(start_stepping):
    server = start_stepping(workers=1)
    server.gate.touch()
    clients = [server.connect(completion(1)) for _ in range(3)]
    wait_for(lambda: server.in_hand() == (1, 2), "one to run and two to wait")
    samples = scrape(server)
    assert samples['forklift_num_requests_running{slot="0"}'] == 1
    assert samples['forklift_num_requests_waiting{slot="0"}'] == 2
    for client in clients:
        client.close()


@pytest.mark.slow
def test_refusals_are_counted_by_reason_wherever_they_are_made(start_stepping):
    server = start_stepping(workers=1, max_body_bytes=1000, body_timeout_s=0.5)
    requests = [
        post("/complete", b"{"),
        post("/complete", b"x" * 2000),
        post("/nowhere/" + "x" * 50, b"{}"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost",
    ]
    statuses = [answer.status for answer in send_all(server.port, requests)]
    assert statuses == [400, 413, 404, 431, 408]
    samples = scrape(server)
    for reason in ("invalid_json", "body_too_large", "route_not_found", "headers_too_large", "body_timeout"):
        assert samples[f'forklift_request_errors_total{{reason="{reason}"}}'] == 1
    assert samples['forklift_requests_total{route="none",status="404"}'] == 1
    assert not any("nowhere" in name for name in samples)


@pytest.mark.slow
def test_the_folder_is_fresh_at_the_start_and_gone_at_the_end(start_stepping, tmp_path):
    (tmp_path / "old").mkdir()
    server = start_stepping({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "old")}, workers=1)
    folder = folder_of(server)
    assert list(folder.glob("*.db"))
    assert not list((tmp_path / "old").iterdir())
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert not folder.exists()


@pytest.mark.slow
def test_the_workers_of_a_killed_master_leave_no_folder(start_stepping):
    server = start_stepping(workers=2, num_ready=2)
    folder = folder_of(server)
    server.process.kill()
    server.wait_for_exit()
    wait_for(lambda: not folder.exists(), "the workers to clean up")


@pytest.mark.slow
def test_metrics_need_a_key_where_there_are_keys(start_stepping):
    server = start_stepping(workers=1, api_keys="sesame")
    assert server.request("GET", "/metrics")[0] == 401
    [answer] = send_all(
        server.port, [b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n\r\n"]
    )
    assert answer.status == 200
    assert b"forklift_requests_total" in answer.body
