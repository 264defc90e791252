"""Loads that fail, hang or cannot fit, with the real engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time

import pytest

from tests.e2e.faulty import seconds_until_gone
from tests.service.conftest import PATIENCE_S, wait_for

pytestmark = pytest.mark.chaos

BODY = {"prompt": "def f(", "max_new_tokens": 4}
LOAD_TIMEOUT_S = 15


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(model_folder("llama"), tmp_path / "model")


def truncate_weights(folder) -> dict[str, object]:
    [weights] = folder.glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    return {}


def forget_weights(folder) -> dict[str, object]:
    [weights] = folder.glob("*.safetensors")
    weights.unlink()
    return {}


def spoil_config(folder) -> dict[str, object]:
    (folder / "config.json").write_text("{")
    return {}


def ask_for_too_much(folder) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100_000_000}))
    return {"max_context_tokens": 100_000_000, "max_batch_size": 64}


@pytest.mark.parametrize("damage", [truncate_weights, forget_weights, spoil_config, ask_for_too_much])
def test_a_model_that_cannot_be_loaded_stops_the_start_with_one_line(start_forklift, folder, damage):
    server = start_forklift(num_ready=0, model=folder, **damage(folder))
    assert server.wait_for_exit(60) == 3
    told = [line for line in server.log().splitlines() if line.startswith("forklift: ")]
    print(told)
    assert len(told) == 1
    assert "Traceback" not in server.log()


def test_when_a_respawn_cannot_load_the_survivor_serves_and_pauses_grow(start_faulty, folder):
    server = start_faulty(model=folder, workers=2, num_ready=2)
    pid = server.pid(1)
    hidden = folder.rename(folder.with_name("hidden"))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(server.log_lines("load_failed")) >= 2, "two failed loads", 60)
    assert [line["retry_in_s"] for line in server.log_lines("load_failed")][:2] == [2.0, 4.0]
    for _ in range(10):
        assert server.post("/complete", json=BODY).status_code == 200
    assert [row["state"] for row in server.rows()] in (["ready", "failed"], ["ready", "loading"])
    hidden.rename(folder)
    server.wait_until_ready(2)


def test_a_load_that_hangs_is_ended_at_its_limit_and_tried_again(start_faulty, folder):
    server = start_faulty({"FAULT_AT_START": "hang"}, model=folder, load_timeout_s=LOAD_TIMEOUT_S, num_ready=0)
    started_s = time.monotonic()
    server.wait_until_listening()
    pid = wait_for(server.pid, "the worker")
    seconds_until_gone(pid)
    took_s = time.monotonic() - started_s
    print(f"gone after {took_s:.1f} s")
    # Counted from before the master's own start, which others on the machine may stretch.
    assert LOAD_TIMEOUT_S <= took_s < LOAD_TIMEOUT_S + PATIENCE_S
    assert re.search(rf"loading took longer than {LOAD_TIMEOUT_S} s", server.log())
    server.wait_until_replaced(pid)
    assert server.post("/complete", json=BODY).status_code == 200
