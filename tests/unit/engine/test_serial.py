"""Models that the slot cache cannot serve go through ``generate``, with the same contract."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator

import pytest
import torch

from app.core.errors import InternalError, QueueTimeoutError, RequestTimeoutError, ShuttingDownError
from app.core.work.job_events import Failed, Finished
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.checks.rehearsal import StrictGuard
from app.engine.generation.serial import SerialEngine
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import (
    TokenLog,
    can_use_slots,
    generator_of,
    greedy_job,
    greedy_reference,
    load,
    outcome,
    run,
)

FALLBACK_FAMILIES = ("mistral", "mamba", "rwkv")
PROMPT = [(i * 37) % 300 + 20 for i in range(70)]
pytestmark = pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*")


@pytest.mark.parametrize("family", SLOT_FAMILIES)
def test_a_model_with_a_plain_cache_runs_on_slots(model_folder, family):
    assert can_use_slots(load(model_folder(family)))


@pytest.mark.parametrize("family", ["qwen2", "codegen", "llama"])
def test_rounding_in_bfloat16_does_not_fail_the_check(model_folder, family):
    assert can_use_slots(load(model_folder(family), FORKLIFT_DTYPE="bfloat16"))


@pytest.mark.parametrize("family", FALLBACK_FAMILIES)
def test_a_model_with_another_cache_does_not(model_folder, family):
    assert not can_use_slots(load(model_folder(family)))


def test_a_window_that_spans_the_context_is_a_plain_cache(model_folder):
    assert can_use_slots(load(model_folder("mistral"), FORKLIFT_MAX_CONTEXT_TOKENS="32"))


def test_a_cache_that_writes_to_the_wrong_place_fails_the_check(model_folder, monkeypatch):
    from app.engine.kv.cache import Window

    set_window = Window.set

    def off_by_one(window, first, positions, num_new, device=None):
        set_window(window, first, [max(position - 1, 0) for position in positions], num_new, device)

    monkeypatch.setattr(Window, "set", off_by_one)
    assert not can_use_slots(load(model_folder("qwen2")))


@pytest.mark.parametrize("family", [*FALLBACK_FAMILIES, "qwen2"])
def test_greedy_output_equals_generate(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    expected = greedy_reference(model, PROMPT, 24, eos_token_id=None)
    log = TokenLog(monkeypatch)
    job = greedy_job(PROMPT, 24)
    run(SerialEngine(model), job)
    assert log.of(job) == expected
    assert outcome(job)[1] == Finished("length")


def test_sampling_and_stops_are_those_of_the_slots(model_folder):
    model = load(model_folder("qwen2"))
    params = SamplingParams(
        40, temperature=0.9, top_k=30, top_p=0.9, repetition_penalty=1.2, seed=4, stop=("e",), ignore_eos=True
    )
    on_slots, through_generate = Job("a", PROMPT, params), Job("b", PROMPT, params)
    run(generator_of(model), on_slots)
    run(SerialEngine(model), through_generate)
    assert outcome(through_generate) == outcome(on_slots)
    assert through_generate.usage.completion_tokens == on_slots.usage.completion_tokens


def steps(engine: SerialEngine, *jobs: Job) -> Iterator[None]:
    """Steps ``engine`` through ``jobs``; yields behind every step."""
    for job in jobs:
        engine.add(job)
    while engine.has_work:
        engine.step()
        yield


def test_a_step_is_a_token(model_folder):
    engine = SerialEngine(load(model_folder("mistral")))
    job = greedy_job(PROMPT, 6)
    assert [job.usage.completion_tokens for _ in steps(engine, job)] == [1, 2, 3, 4, 5, 6]


def test_text_comes_token_by_token_and_a_cancelled_job_stops_at_the_next(model_folder):
    engine = SerialEngine(load(model_folder("mistral")))
    job, later = greedy_job(PROMPT, 500), greedy_job(PROMPT, 2)
    events = []
    for _ in steps(engine, job, later):
        events.append(job.next_events(0))
        if len(events) == 5:
            job.cancel(ShuttingDownError("the client is gone"))
    assert job.usage.completion_tokens == 5
    assert sum(map(bool, events[:5])) >= 3
    last = [event for batch in events for event in batch][-1]
    assert isinstance(last.error, ShuttingDownError)
    assert outcome(later)[1] == Finished("length")


def test_deadlines_count_while_another_job_runs(model_folder):
    engine = SerialEngine(load(model_folder("mistral")))
    running = greedy_job(PROMPT, 900)
    waiting = Job("late", PROMPT, SamplingParams(2), queue_deadline_s=time.monotonic() + 0.05)
    running.deadline_s = time.monotonic() + 0.2
    ends = [(waiting.has_ended, running.has_ended) for _ in steps(engine, running, waiting)]
    assert isinstance(outcome(waiting)[1].error, QueueTimeoutError)
    assert isinstance(outcome(running)[1].error, RequestTimeoutError)
    assert (True, False) in ends


def test_a_job_that_nobody_bounded_ends_at_its_deadline_with_its_text(model_folder):
    engine = SerialEngine(load(model_folder("mistral")))
    job = Job("open", PROMPT, SamplingParams(900, ignore_eos=True), is_open=True)
    for _ in steps(engine, job):
        if job.usage.completion_tokens == 5:
            job.deadline_s = time.monotonic() - 1
    assert outcome(job)[1] == Finished("length")
    assert job.usage.completion_tokens == 5


def test_a_model_that_raises_fails_its_job_and_not_the_next(model_folder, monkeypatch):
    model = load(model_folder("mistral"))
    generator = SerialEngine(model)
    forward = model.checkpoint.model.forward
    broken, whole = greedy_job(PROMPT, 8), greedy_job(PROMPT, 8)

    def failing(*args, **kwargs):
        if broken.usage.completion_tokens == 3 and not broken.has_ended:
            raise RuntimeError("the model broke")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.checkpoint.model, "forward", failing)
    run(generator, broken, whole)
    end = outcome(broken)[1]
    assert isinstance(end, Failed)
    assert isinstance(end.error, InternalError)
    assert outcome(whole)[1] == Finished("length")


def test_what_generate_raises_comes_out_of_the_step(model_folder, monkeypatch):
    model = load(model_folder("mistral"))
    engine = SerialEngine(model)
    engine.guard = StrictGuard(model.checkpoint.device)
    engine.add(greedy_job(PROMPT, 8))
    engine.step()

    def failing(*_args, **_kwargs):
        raise RuntimeError("the model broke")

    monkeypatch.setattr(model.checkpoint.model, "forward", failing)
    with pytest.raises(RuntimeError, match="the model broke"):
        engine.step()


def test_fail_all_ends_every_job_at_once(model_folder):
    engine = SerialEngine(load(model_folder("mistral")))
    job, waiting = greedy_job(PROMPT, 300), greedy_job(PROMPT, 3)
    for _ in steps(engine, job, waiting):
        engine.fail_all(ShuttingDownError("stopping"))
    assert isinstance(outcome(waiting)[1].error, ShuttingDownError)
    assert isinstance(outcome(job)[1].error, ShuttingDownError)
    assert job.usage.completion_tokens == 1


def test_an_engine_that_is_let_go_of_in_the_middle_of_a_job_is_gone(model_folder):
    engine = SerialEngine(load(model_folder("mistral")))
    engine.add(greedy_job(PROMPT, 300))
    engine.step()
    left = weakref.ref(engine), weakref.ref(engine._active.sequence)
    del engine
    gc.collect()
    assert [one() for one in left] == [None, None]
    assert_plain_thread()


def test_torchs_modes_hold_in_every_pass_and_nowhere_else(model_folder, monkeypatch):
    model = load(model_folder("mistral"))
    modes = []
    forward = model.checkpoint.model.forward

    def noting(*args, **kwargs):
        modes.append(torch.is_inference_mode_enabled())
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.checkpoint.model, "forward", noting)
    engine = SerialEngine(model)
    for _ in steps(engine, greedy_job(PROMPT, 3), greedy_job(PROMPT, 3)):
        assert_plain_thread()
    assert modes == [True] * 6
    engine.add(greedy_job(PROMPT, 3))
    engine.step()
    engine.fail_all(ShuttingDownError("in the middle of a job"))
    assert_plain_thread()


def assert_plain_thread() -> None:
    """No mode of a pass is left: a load that came now would make weights that nobody could change."""
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
