"""A real server compiles with a real compiler while streams run, and changes over: none fails, none differs."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import psutil
import pytest
import requests

from tests.e2e.conftest import Forklift
from tests.processes import is_alive
from tests.service.conftest import server_starter
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]
# Seconds; a busy machine with two cores takes minutes for a small model.
LIMIT_S = 1800.0
NUM_STREAMS = 16


@pytest.fixture
def start(tmp_path):
    starter = server_starter(tmp_path, Forklift)
    begin = next(starter)
    yield lambda **settings: begin(
        {"CXX": "g++"}, COMPILE="auto", CACHE_DIR=str(tmp_path / "cache"), LOG_FORMAT="json", **settings
    )
    next(starter, None)


def is_compiled(server: Forklift) -> bool:
    [engine] = server.get("/readyz")[1]["engines"]
    return engine["compiled"]


def complete(server: Forklift, i: int, found: list) -> None:
    body = {"prompt": f"def number_{i}(", "max_new_tokens": 48, "ignore_eos": True, "temperature": 0}
    try:
        found.append((i, server.post("/complete", json=body).json()["completion"]))
    except (requests.RequestException, KeyError) as error:
        found.append((i, error))


def round_of(server: Forklift) -> dict:
    """What sixteen at a time are given."""
    found: list = []
    threads = [threading.Thread(target=complete, args=(server, i, found)) for i in range(NUM_STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return dict(found)


def require_texts(found: dict) -> None:
    """Nobody was failed. Which texts they are is seen in float32: in 16 bits a row's rounding depends on the others."""
    assert found and not [text for text in found.values() if not isinstance(text, str)]


def compiling_child(server: Forklift) -> psutil.Process | None:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return next((one for one in children if any("compile_process" in part for part in one.cmdline())), None)


def test_streams_run_on_while_a_server_compiles_and_changes_over(start, model_folder):
    # Not packed in float16: several sequences and lone ones are served on one layout.
    server = start(MODEL=str(model_folder("llama")), DTYPE="float16", MAX_BATCH_SIZE=str(NUM_STREAMS))
    rounds = 0
    while not is_compiled(server):
        require_texts(round_of(server))
        rounds += 1
    require_texts(round_of(server))
    assert rounds > 1
    [made] = server.log_lines("package_made")
    assert made["compiled_ms"] > 0
    assert not server.log_lines("package_not_made")


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_lone_stream_in_float32_is_the_same_before_while_and_after(start, model_folder, quantization):
    server = start(MODEL=str(model_folder("llama")), QUANTIZATION=quantization)
    wait_until(lambda: compiling_child(server), LIMIT_S)
    texts = set()
    while not is_compiled(server):
        found: list = []
        complete(server, 0, found)
        texts.add(found[0][1])
    complete(server, 0, found)
    texts.add(found[-1][1])
    assert len(texts) == 1
    assert not server.log_lines("step_failed_check")


@pytest.mark.parametrize("which", ["pacer", "compiler"])
def test_a_child_that_is_killed_is_said_and_the_server_serves(start, model_folder, which):
    server = start(MODEL=str(model_folder("llama")))
    wait_until(lambda: (child := compiling_child(server)) and child.children(), LIMIT_S)
    child = compiling_child(server)
    assert child is not None
    os.kill(child.pid if which == "pacer" else child.children()[0].pid, signal.SIGKILL)
    wait_until(lambda: server.log_lines("package_not_made"), LIMIT_S)
    assert "ended by signal 9" in server.log_lines("package_not_made")[0]["reason"]
    found: list = []
    complete(server, 0, found)
    require_texts(dict(found))


def test_nothing_compiles_on_when_the_server_was_killed(start, model_folder):
    server = start(MODEL=str(model_folder("llama")))
    wait_until(lambda: compiling_child(server), LIMIT_S)
    child = compiling_child(server)
    assert child is not None
    wait_until(child.children, LIMIT_S)
    below = child.children(recursive=True)
    for process in [*psutil.Process(server.process.pid).children(), psutil.Process(server.process.pid)]:
        process.kill()
    wait_until(lambda: not [one for one in (child, *below) if is_alive(one.pid)])
