"""Processes of the whole product: one model per worker, kills, labels, the development server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Forklift, Stream
from tests.service.conftest import LOAD_PATIENCE_S, PATIENCE_S, REPOSITORY, server_starter, unused_port, wait_for

pytestmark = pytest.mark.slow  # real servers; tests/service has the same with a stand-in

COUNTER = Path(__file__).parent / "count_models"


def counting(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment in which each new model adds a line to a file."""
    file = tmp_path / "models"
    return {"PYTHONPATH": str(COUNTER), "COUNT_MODELS_FILE": str(file)}, file


@pytest.fixture(scope="module")
def pair(tmp_path_factory, model_folder):
    """Two workers, each with a GPU's label, that count the models which they make in ``pair.counted``."""
    folder = tmp_path_factory.mktemp("pair")
    environ, file = counting(folder)
    starter = server_starter(folder, Forklift)
    settings = {"workers": 2, "model": model_folder("qwen2"), "max_new_tokens": 900, "device": "cpu"}
    server = next(starter)(environ | {"CUDA_VISIBLE_DEVICES": "a,b"}, num_ready=2, **settings)
    server.counted = file
    yield server
    next(starter, None)


def test_each_worker_makes_one_model(pair):
    for _ in range(4):
        assert pair.post("/complete", json={"prompt": "a", "max_new_tokens": 2}).status_code == 200
    made_by = Counter(pair.counted.read_text().split())
    assert set(made_by.values()) == {1}
    assert {str(row["pid"]) for row in pair.rows()} <= set(made_by)


@pytest.mark.slow
def test_the_development_server_makes_one_model_even_with_debug_on(model_folder, tmp_path):
    environ, file = counting(tmp_path)
    port = unused_port()
    settings = {"FORKLIFT_MODEL": str(model_folder("qwen2")), "FORKLIFT_BIND": f"127.0.0.1:{port}"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "wsgi.py"],
            cwd=REPOSITORY,
            env={**os.environ, **environ, **settings, "FLASK_DEBUG": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: status_of(url + "/readyz") == 200, "the development server", LOAD_PATIENCE_S)
        answer = requests.post(url, json={"data": "x = "}, timeout=PATIENCE_S)
        assert answer.json().startswith("x = ")
        assert file.read_text().split() == [str(process.pid)]
    finally:
        process.terminate()
        process.wait(10)


def status_of(url: str) -> int:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.ConnectionError:
        return 0


def test_a_killed_worker_takes_only_its_own_stream_with_it(pair):
    server = pair
    before = {row["slot"]: row for row in server.rows()}
    streams = [Stream(server, 900), Stream(server, 900)]
    assert {stream.slot for stream in streams} == {0, 1}
    wait_for(lambda: all(len(stream.lines) > 3 for stream in streams), "both streams to flow")
    killed = streams[0].slot
    os.kill(before[killed]["pid"], signal.SIGKILL)
    assert "data: [DONE]" not in streams[0].wait()
    survivor = streams[1].wait()
    assert survivor[-1] == "data: [DONE]"
    assert json.loads(survivor[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 900
    server.wait_until_ready(2)
    after = {row["slot"]: row for row in server.rows()}
    assert after[killed]["pid"] != before[killed]["pid"]
    assert [after[slot]["gpus"] for slot in (0, 1)] == [["a"], ["b"]]
    assert {after[slot]["num_running"] + after[slot]["num_waiting"] for slot in (0, 1)} == {0}


@pytest.mark.slow
def test_ctrl_c_ends_a_server_in_the_middle_of_a_stream_with_code_0(start_forklift, model_folder):
    server = start_forklift(model=model_folder("gpt2"), max_new_tokens=900)
    stream = Stream(server, 900)
    wait_for(lambda: stream.lines, "the stream")
    started = time.monotonic()
    server.signal(signal.SIGINT)
    assert server.wait_for_exit(5) == 0
    assert time.monotonic() - started < 5
    assert "data: [DONE]" not in stream.wait()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "/nowhere/at/all"}, "the model folder /nowhere/at/all does not exist"),
        ({"max_queu": "3"}, "did you mean FORKLIFT_MAX_QUEUE?"),
        ({"device": "cuda"}, "GPU"),
    ],
)
def test_a_start_that_cannot_work_is_one_line_and_exit_code_3(start_forklift, settings, line):
    server = start_forklift(num_ready=0, **settings)
    assert server.wait_for_exit() == 3
    told = [text for text in server.log().splitlines() if text.startswith("forklift: ")]
    assert len(told) == 1
    assert line in told[0]
    assert "Traceback" not in server.log()


@pytest.mark.slow
def test_the_sync_worker_class_serves_the_happy_paths(start_forklift, model_folder):
    environ = {"GUNICORN_CMD_ARGS": "--worker-class sync --threads 1"}
    server = start_forklift(environ, model=model_folder("qwen2"))
    answer = server.post("/complete", json={"prompt": "def f(", "max_new_tokens": 5})
    assert answer.json()["usage"]["completion_tokens"] == 5
    streamed = server.post("/complete", json={"prompt": "def f(", "max_new_tokens": 5, "stream": True})
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert server.post("/complete", data="{", headers={"Content-Type": "application/json"}).status_code == 400
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_each_request_is_one_log_line_with_its_recordid(demo):
    body = {"prompt": "secret text", "max_new_tokens": 3, "recordid": "77492467", "ignore_eos": True}
    answer = demo.post("/complete", json=body, headers={"X-Request-Id": "abc-1"})
    assert answer.json()["recordid"] == "77492467"

    def logged():
        return [line for line in demo.log_lines("request") if line["request_id"] == "abc-1"]

    [line] = wait_for(logged, "the log line")
    assert (line["recordid"], line["status"]) == ("77492467", 200)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (answer.json()["usage"]["prompt_tokens"], 3)
    assert "secret" not in demo.log()
