"""Slots, environment, crashes and reloads of real workers."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import REPOSITORY, wait_for
from tests.thinned import few_of


def test_each_slot_has_one_label_and_keeps_it_after_a_kill(start_server):
    server = start_server({"CUDA_VISIBLE_DEVICES": "a,b,c,d"}, workers=4, num_ready=4)
    before = server.rows()
    assert [row["gpus"] for row in before] == [["a"], ["b"], ["c"], ["d"]]
    for killed in (2, 0, 2):
        pid = server.rows()[killed]["pid"]
        os.kill(pid, signal.SIGKILL)
        rows = wait_for(lambda pid=pid, killed=killed: replaced(server, killed, pid), "a new worker")
        assert rows[killed]["gpus"] == before[killed]["gpus"]
        assert len({row["pid"] for row in rows}) == 4


def replaced(server, slot, old_pid):
    rows = server.rows()
    return rows if rows[slot]["pid"] not in (None, old_pid) and rows[slot]["state"] == "ready" else None


def test_a_worker_sees_only_its_own_gpu_and_share_of_the_cores(start_server):
    server = start_server({"CUDA_VISIBLE_DEVICES": "a,b"}, workers=2, num_ready=2)
    seen = {}
    while len(seen) < 2:
        status, answer = server.get("/env")
        assert status == 200
        seen[answer["environ"]["CUDA_VISIBLE_DEVICES"]] = answer["environ"]
    assert set(seen) == {"a", "b"}
    cores = len(os.sched_getaffinity(0))
    for environ in seen.values():
        assert environ["OMP_NUM_THREADS"] == str(max(1, cores // 2))
        assert environ["TOKENIZERS_PARALLELISM"] == "false"
        assert environ["HF_HUB_OFFLINE"] == "1"


def test_counters_return_to_zero_after_a_worker_is_killed_with_work_in_hand(start_server):
    server = start_server(workers=1)
    clients = [server.connect(b"GET /work?s=60 HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(3)]
    busy = wait_for(lambda: [row for row in server.rows() if row["num_running"] == 3], "three running requests")
    os.kill(busy[0]["pid"], signal.SIGKILL)
    wait_for(lambda: replaced(server, 0, busy[0]["pid"]), "a new worker")
    for client in clients:
        client.close()
    # The request that asks is itself in hand; the one before may be for a moment after its answer.
    counts = ("num_running", "num_waiting", "num_connections")
    wait_for(lambda: [server.rows()[0][name] for name in counts] == [0, 0, 1], "the counters to return")


def test_counters_return_to_zero_after_clients_leave_in_the_middle(start_server):
    server = start_server(workers=1)
    clients = [server.connect(b"GET /stream?s=60 HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(3)]
    clients += [server.connect(b"POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc") for _ in range(3)]
    wait_for(lambda: server.rows()[0]["num_running"] == 3, "three running streams")
    for client in clients:
        client.close()
    wait_for(lambda: server.rows()[0]["num_running"] == 0, "their end")
    wait_for(lambda: server.rows()[0]["num_connections"] == 1, "only the request that asks to count")


@pytest.mark.slow
def test_work_is_refused_while_loading_and_the_probe_answers(start_server):
    server = start_server({"DOUBLE_LOAD_S": "3"}, workers=1, num_ready=0)
    server.wait_until_listening()
    assert server.get("/livez")[0] == 200
    assert server.get("/readyz")[1][0]["state"] == "loading"
    status, body = server.get("/work?s=0")
    assert (status, body["error"]["code"]) == (503, "loading")
    server.wait_until_ready()
    assert server.get("/work?s=0")[0] == 200


def test_a_load_that_fails_at_the_start_stops_the_server_with_one_line(start_server):
    server = start_server({"DOUBLE_LOAD": "fails"}, workers=2, num_ready=0)
    assert server.wait_for_exit() == 3
    assert server.log().count("forklift: the double has no model\n") == 1
    assert "Traceback" not in server.log()


def test_a_worker_with_a_defect_is_replaced(start_server, tmp_path):
    flag = tmp_path / "defect"
    server = start_server({"DOUBLE_DEFECT": str(flag)}, workers=1)
    pid = server.rows()[0]["pid"]
    flag.touch()
    wait_for(lambda: "worker_defect" in server.log(), "the defect")
    flag.unlink()
    wait_for(lambda: replaced_quietly(server, pid), "a new worker")
    assert '"reason": "the double is broken"' in server.log()
    assert "exited with code 1" in server.log()


def replaced_quietly(server, old_pid):
    try:
        return replaced(server, 0, old_pid)
    except (OSError, http.client.HTTPException):  # the answer of the dying worker may be cut
        return None


@pytest.mark.slow
def test_workers_that_die_while_loading_start_again_with_growing_pauses(start_server):
    server = start_server({"DOUBLE_LOAD": "dies"}, workers=1, num_ready=0)
    server.wait_until_listening()
    wait_for(lambda: '"pause_s": 2.0' in server.log(), "the second pause")
    assert server.get("/livez")[0] == 200
    deaths = [int(number) for number in re.findall(r'"num_fast_deaths": (\d+)', server.log())]
    assert deaths == [2, 3]


@pytest.mark.chaos
def test_workers_that_only_ever_die_stop_the_server_with_one_line(start_server):
    server = start_server({"DOUBLE_LOAD": "dies"}, workers=1, num_ready=0)
    assert server.wait_for_exit(120) == 3
    [line] = [line for line in server.log().splitlines() if line.startswith("forklift: ")]
    assert "6 workers died one after the other, and none was ever ready" in line


@pytest.mark.slow
def test_after_a_reload_new_workers_take_the_slots_of_the_old(start_server):
    server = start_server({"CUDA_VISIBLE_DEVICES": "a,b"}, workers=2, num_ready=2)
    old = {row["pid"] for row in server.rows()}
    server.signal(signal.SIGHUP)

    def all_new():
        rows = server.rows()
        pids = {row["pid"] for row in rows}
        return rows if not pids & old and {row["state"] for row in rows} == {"ready"} else None

    rows = wait_for(all_new, "new workers in both slots")
    assert [row["gpus"] for row in rows] == [["a"], ["b"]]
    assert server.get("/work?s=0")[0] == 200


@pytest.mark.slow
def test_a_worker_beyond_the_slots_loads_nothing_and_takes_a_slot_that_becomes_free(start_server):
    server = start_server(workers=1)
    server.signal(signal.SIGTTIN)
    children = wait_for(lambda: two_children(server), "a second worker")
    [spare] = children - {server.rows()[0]["pid"]}
    for _ in range(10):
        assert server.get("/work?s=0")[0] == 200
    os.kill(server.rows()[0]["pid"], signal.SIGKILL)
    wait_for(lambda: any(row["state"] == "ready" for row in server.rows()), "a ready slot")
    assert server.rows()[0]["pid"] != spare or server.get("/work?s=0")[0] == 200


def two_children(server):
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    found = {int(pid) for pid in text.split()}
    return found if len(found) == 2 else None


def test_the_master_loads_neither_torch_nor_flask(start_server):
    server = start_server(workers=1)
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert not re.search(r"torch|tokenizers|libcuda|markupsafe|numpy", maps)


@pytest.mark.parametrize("worker_class", few_of(["sync", "gthread"], 1))
def test_the_application_also_works_under_gunicorns_own_workers(start_server, worker_class):
    server = start_server({"DOUBLE_WORKER_CLASS": worker_class}, workers=2, num_ready=2)
    assert {server.get("/work?s=0.05")[0] for _ in range(5)} == {200}
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


@pytest.mark.slow
@pytest.mark.parametrize("worker_class", few_of(["sync", "gthread"], 1))
def test_a_failed_load_stops_the_server_under_gunicorns_own_workers_too(start_server, worker_class):
    server = start_server({"DOUBLE_LOAD": "fails", "DOUBLE_WORKER_CLASS": worker_class}, workers=1, num_ready=0)
    assert server.wait_for_exit() == 3


def test_a_wrong_setting_stops_the_start_with_one_line(start_server):
    server = start_server(workers=1, bindd="x", num_ready=0)
    assert server.wait_for_exit() == 3
    assert server.log() == "forklift: unknown setting FORKLIFT_BINDD; did you mean FORKLIFT_BIND?\n"


def test_the_configuration_passes_gunicorns_own_check():
    command = "-m gunicorn --check-config -c tests/service/gunicorn_double.py tests.service.double:app"
    run = subprocess.run([sys.executable, *command.split()], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
