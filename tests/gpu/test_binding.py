"""Workers and the one GPU they share: who has a CUDA context, what a kill gives back, which setting is refused."""

from __future__ import annotations

import os
import signal

import pynvml
import pytest
import torch

from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter, wait_for

pytestmark = pytest.mark.gpu
PATIENCE_S = 120.0
TOLERANCE_BYTES = 64 * 2**20


@pytest.fixture
def start_forklift(tmp_path):
    yield from server_starter(tmp_path, Forklift)


@pytest.fixture(autouse=True)
def nvml():
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()


@pytest.fixture
def driver_knows_us():
    """The driver lists processes by the machine's own numbers: in a container they may be others."""
    torch.zeros(1, device="cuda")
    if os.getpid() not in pids_on_gpu():
        pytest.skip("the driver does not list this process: its numbers are another namespace's (--pid=host)")


def pids_on_gpu() -> set[int]:
    """Processes with a CUDA context, as the driver lists them."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}


def used_bytes() -> int:
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def two_workers(start_forklift, folder) -> Forklift:
    environ = {"CUDA_VISIBLE_DEVICES": "0"}
    # Nothing here is about how steps are made.
    settings = {"device": "cuda", "workers": 2, "workers_per_gpu": 2, "decode_runner": "eager"}
    return start_forklift(environ, num_ready=2, model=folder, **settings)


def test_two_workers_share_the_gpu_and_the_master_has_no_context(start_forklift, model_folder, driver_knows_us):
    server = two_workers(start_forklift, model_folder("qwen2"))
    rows = server.rows()
    assert [row["gpus"] for row in rows] == [["0"], ["0"]]
    assert {row["pid"] for row in rows} <= pids_on_gpu()
    assert server.process.pid not in pids_on_gpu()
    for _ in range(4):
        assert server.post("/complete", json={"prompt": "a", "max_new_tokens": 2}).status_code == 200


def test_a_killed_worker_gives_its_memory_back_and_is_replaced(start_forklift, model_folder):
    server = two_workers(start_forklift, model_folder("qwen2"))
    both = used_bytes()
    victim = server.rows()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: victim not in pids_on_gpu(), "the driver to forget the killed worker", PATIENCE_S)
    wait_for(lambda: has_replaced(server, victim), "a new worker", PATIENCE_S)
    assert abs(used_bytes() - both) < TOLERANCE_BYTES


def has_replaced(server: Forklift, victim: int) -> bool:
    rows = server.rows()
    return sum(row["state"] == "ready" for row in rows) == 2 and victim not in {row["pid"] for row in rows}


def test_more_workers_than_the_gpu_was_said_to_have_room_for_are_refused(start_forklift, model_folder):
    environ = {"CUDA_VISIBLE_DEVICES": "0"}
    server = start_forklift(environ, num_ready=0, model=model_folder("qwen2"), device="cuda", workers=2)
    assert server.wait_for_exit() != 0
    assert "WORKERS_PER_GPU" in server.log()
