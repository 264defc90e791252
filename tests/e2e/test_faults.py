"""The real engine fails in the middle of its work: what clients see, and what becomes of the worker."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Stream
from tests.e2e.faulty import FaultyForklift, seconds_until_gone
from tests.processes import is_alive
from tests.service.conftest import server_starter, wait_for
from tests.tiny_models import MAX_POSITIONS

pytestmark = pytest.mark.slow  # real servers; tests/service has the same with a stand-in

BODY = {"prompt": "def f(", "max_new_tokens": 8, "ignore_eos": True}
STALL_TIMEOUT_S = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder):
    starter = server_starter(tmp_path_factory.mktemp("faults"), FaultyForklift)
    yield next(starter)(model=model_folder("gpt2"), max_new_tokens=900, stall_timeout_s=STALL_TIMEOUT_S)
    next(starter, None)


@pytest.fixture
def start_faulty(tmp_path):
    yield from server_starter(tmp_path, FaultyForklift)


def test_a_model_that_raises_at_the_third_token_costs_one_stream(server):
    pid = server.pid()
    server.order("raise")
    lines = Stream(server, 8).wait()
    assert '"code": "internal_error"' in lines[-1] or '"code":"internal_error"' in lines[-1]
    assert "the model raises" not in lines[-1]
    assert "the model raises" in server.log()
    assert server.post("/complete", json=BODY).status_code == 200
    assert (server.pid(), server.rows()[0]["num_running"]) == (pid, 0)


def test_running_out_of_memory_costs_one_request(server):
    pid = server.pid()
    server.order("memory")
    failed = server.post("/complete", json=BODY)
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
    assert server.post("/complete", json=BODY).status_code == 200
    assert server.pid() == pid


@pytest.mark.parametrize(
    ("fault", "limit_s"),
    [
        pytest.param("device", 5, marks=pytest.mark.slow),
        pytest.param("die", 5),
        pytest.param("stall", STALL_TIMEOUT_S + 5, marks=pytest.mark.slow),
    ],
    ids=["device", "die", "stall"],
)
def test_a_worker_that_cannot_go_on_fails_its_requests_and_is_replaced(server, fault, limit_s):
    pid = server.pid()
    server.order(fault)
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(server.post, "/complete", json=BODY)
        seconds = seconds_until_gone(pid)
        print(f"{fault}: gone after {seconds:.1f} s")
        assert seconds < limit_s
        answer = failed.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    server.wait_until_replaced(pid)
    assert "worker_defect" in server.log()
    assert server.post("/complete", json=BODY).status_code == 200


def test_a_pattern_that_would_explode_elsewhere_does_no_harm(server):
    answer = server.post("/complete", json=BODY | {"prompt": "a" * 200 + "!", "truncate_before_pattern": ["(a+)+$"]})
    assert answer.status_code == 200


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_prompt_and_completion_fit_the_context_exactly(server, beyond):
    prompt = "def f(" + " x" * 300
    num_prompt = server.post("/complete", json=BODY | {"prompt": prompt}).json()["usage"]["prompt_tokens"]
    num_new = MAX_POSITIONS - num_prompt + beyond
    answer = server.post("/complete", json=BODY | {"prompt": prompt, "max_new_tokens": num_new})
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == min(num_new, MAX_POSITIONS - num_prompt)
    assert answer.json()["finish_reason"] == "length"


def test_sigterm_finishes_what_runs_and_refuses_what_waits(server):
    server.order("slow")
    running = Stream(server, 40)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(server.post, "/complete", json=BODY) for _ in range(3)]
        wait_for(lambda: server.rows()[0]["num_waiting"] == 3, "three to wait")
        server.signal(signal.SIGTERM)
        answers = [future.result() for future in waiting]
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(503, "shutting_down")}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
    assert running.wait()[-1] == "data: [DONE]"
    assert server.wait_for_exit() == 0


@pytest.mark.slow
def test_a_generation_longer_than_the_drain_ends_with_an_error_and_leaves_no_process(start_faulty, model_folder):
    server = start_faulty(model=model_folder("gpt2"), max_new_tokens=900, drain_timeout_s=1)
    server.order("slow")
    pid = server.pid()
    stream = Stream(server, 900)
    wait_for(lambda: stream.lines, "the stream")
    server.signal(signal.SIGTERM)
    lines = stream.wait()
    assert "shutting_down" in lines[-1]
    assert "data: [DONE]" not in lines
    assert server.wait_for_exit() == 0
    assert not is_alive(pid)


def test_sigterm_during_the_load_ends_the_server_within_two_seconds(start_faulty, model_folder):
    server = start_faulty(model=model_folder("gpt2"), num_ready=0)
    server.wait_until_listening()
    assert server.get("/readyz")[1]["state"] == "loading"
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit(2) == 0
