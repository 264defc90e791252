"""The inference thread: states, jobs from many threads, drain, failures that must be seen."""

from __future__ import annotations

import threading
import time

import pytest

from app.core.errors import (
    InternalError,
    LoadingError,
    ModelLoadError,
    RequestTimeoutError,
    ShuttingDownError,
)
from app.core.settings import load_settings
from app.core.work.job_events import Failed, Finished, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.loading import build as build_module
from app.engine.thread import first_load
from app.engine.thread.inference import Inference, make_inference
from tests.waiting import LIMIT_S, wait_until


class Started:
    """A started inference thread and the states that it told."""

    def __init__(self, folder, **environ: str):
        self.states: list[tuple[str, float]] = []
        settings = load_settings({"FORKLIFT_MODEL": str(folder), **environ})
        self.inference: Inference = make_inference(settings, 0, lambda *state: self.states.append(state))
        self.inference.start()

    @property
    def is_ready(self) -> bool:
        """The model is there somewhat earlier, while ``submit`` still refuses jobs."""
        return self.states[-1:] == [("ready", 1.0)]


@pytest.fixture
def start():
    started = []

    def make(folder, **environ: str) -> Started:
        started.append(Started(folder, **environ))
        return started[-1]

    yield make
    for one in started:
        one.inference._stop()


@pytest.fixture
def ready(start, model_folder):
    started = start(model_folder("qwen2"))
    wait_until(lambda: started.is_ready)
    return started


def job_of(num_new: int = 8, **options: object) -> Job:
    return Job("t", [30, 31, 32], SamplingParams(num_new, ignore_eos=True), **options)


def end_of(job: Job):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        for event in job.next_events(1):
            if isinstance(event, Finished | Failed):
                return event
    raise AssertionError("the job did not end")


def test_it_tells_its_progress_and_then_serves(ready):
    assert ready.states[0] == ("loading", 0.0)
    progress = [share for state, share in ready.states if state == "loading"]
    assert progress == sorted(progress)
    assert ready.states[-1] == ("ready", 1.0)
    job = job_of()
    ready.inference.submit(job)
    assert end_of(job) == Finished("length")
    assert ready.inference.defect() is None


@pytest.fixture
def gate(monkeypatch):
    """Keeps every load from ending until it is set."""
    gate, prepare = threading.Event(), build_module.prepare
    monkeypatch.setattr(build_module, "prepare", lambda *a, **k: (gate.wait(LIMIT_S), prepare(*a, **k))[1])
    yield gate
    gate.set()


def test_work_is_refused_while_loading(start, model_folder, gate):
    started = start(model_folder("qwen2"))
    with pytest.raises(LoadingError):
        started.inference.submit(job_of())


def test_jobs_of_many_threads_all_end(ready):
    jobs = [job_of(1 + i % 5) for i in range(40)]
    threads = [threading.Thread(target=ready.inference.submit, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end_of(job) for job in jobs] == [Finished("length")] * 40


def test_drain_lets_the_running_job_end_and_fails_the_waiting_one(ready):
    running, waiting = job_of(900), job_of()
    ready.inference.submit(running)
    ready.inference.submit(waiting)
    wait_until(lambda: running.usage.completion_tokens > 0)
    ready.inference.drain()
    assert isinstance(end_of(waiting).error, ShuttingDownError)
    assert end_of(running) == Finished("length")
    with pytest.raises(ShuttingDownError):
        ready.inference.submit(job_of())


def test_cancel_all_ends_a_running_job_in_the_middle(ready):
    job = job_of(900)
    ready.inference.submit(job)
    wait_until(lambda: job.usage.completion_tokens > 0)
    ready.inference.cancel_all(ShuttingDownError("now"))
    assert isinstance(end_of(job).error, ShuttingDownError)
    assert job.usage.completion_tokens < 900


def test_a_deadline_that_passes_while_another_job_runs_ends_the_waiting_one(ready):
    running, late = job_of(900), job_of(deadline_s=time.monotonic() + 0.05)
    ready.inference.submit(running)
    ready.inference.submit(late)
    assert isinstance(end_of(late).error, RequestTimeoutError)
    running.cancel(ShuttingDownError("enough"))


def test_a_load_failure_is_told_and_tried_again(start, tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(first_load, "FIRST_RETRY_S", 0.2)
    folder = tmp_path / "later"
    started = start(folder)
    wait_until(lambda: started.inference.load_failure() is not None)
    assert isinstance(started.inference.load_failure(), ModelLoadError)
    assert ("failed", 0.0) in started.states
    folder.symlink_to(model_folder("qwen2"))
    wait_until(lambda: started.is_ready)
    assert started.inference.load_failure() is None


@pytest.mark.parametrize("leave", [Inference.drain, Inference._stop])
def test_leaving_ends_the_pause_between_two_loads_at_once(leave, start, tmp_path, monkeypatch):
    monkeypatch.setattr(first_load, "FIRST_RETRY_S", 3600.0)
    started = start(tmp_path / "nowhere")
    wait_until(lambda: started.inference.load_failure() is not None)
    leave(started.inference)
    wait_until(lambda: not started.inference._thread.is_alive())
    assert started.states[-1] == ("failed", 0.0), "no other load was begun"
    assert started.inference.defect() is None
    with pytest.raises(ShuttingDownError):
        started.inference.submit(job_of())


def test_a_load_that_takes_too_long_is_a_defect(start, model_folder, gate):
    started = start(model_folder("qwen2"), FORKLIFT_LOAD_TIMEOUT_S="0.1")
    wait_until(lambda: started.inference.defect() is not None)
    assert "loading took longer" in started.inference.defect()


def test_a_step_that_hangs_is_a_defect(start, model_folder, monkeypatch):
    started = start(model_folder("qwen2"), FORKLIFT_STALL_TIMEOUT_S="0.2")
    wait_until(lambda: started.is_ready)
    gate = threading.Event()
    monkeypatch.setattr(started.inference.handles[0].prepared.engine.runner, "decode", lambda *_: gate.wait(LIMIT_S))
    started.inference.submit(job_of())
    wait_until(lambda: started.inference.defect() is not None)
    assert "no token for 0.2 s" in started.inference.defect()
    gate.set()


def test_a_thread_that_dies_fails_its_jobs_and_is_a_defect(ready, monkeypatch):
    def die() -> None:
        raise SystemError("the scheduler broke")

    monkeypatch.setattr(ready.inference.handles[0].prepared.engine, "step", die)
    job = job_of()
    ready.inference.submit(job)
    assert isinstance(end_of(job).error, InternalError)
    wait_until(lambda: ready.inference.defect() is not None)
    assert "died" in ready.inference.defect()
    with pytest.raises(LoadingError):
        ready.inference.submit(job_of())


def test_text_arrives_while_the_job_runs(ready):
    job = job_of(200)
    ready.inference.submit(job)
    batches = []
    while not batches or not isinstance(batches[-1][-1], Finished):
        batches.append(job.next_events(LIMIT_S))
    assert len(batches) > 1
    assert sum(isinstance(event, TextDelta) for batch in batches for event in batch) > 20
