"""Models that the slot cache cannot serve go through ``generate``, with the same contract."""

from __future__ import annotations

import time

import pytest

from app.core.errors import InternalError, QueueTimeoutError, RequestTimeoutError, ShuttingDownError
from app.core.jobs import Failed, Finished, Job, SamplingParams
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

FALLBACK_FAMILIES = ("mistral", "mamba")
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


def test_text_comes_token_by_token_and_a_cancelled_job_stops_at_the_next(model_folder):
    model = load(model_folder("mistral"))
    generator = SerialEngine(model)
    job, later = greedy_job(PROMPT, 500), greedy_job(PROMPT, 2)
    events = []

    def between_tokens() -> None:
        events.append(job.next_events(0))
        if len(events) == 5:
            job.cancel(ShuttingDownError("the client is gone"))

    generator.between_tokens = between_tokens
    run(generator, job, later)
    assert job.usage.completion_tokens == 5
    assert sum(map(bool, events[:5])) >= 3
    last = [event for batch in events for event in batch][-1]
    assert isinstance(last.error, ShuttingDownError)
    assert outcome(later)[1] == Finished("length")


def test_deadlines_count_while_another_job_runs(model_folder):
    generator = SerialEngine(load(model_folder("mistral")))
    running = greedy_job(PROMPT, 900)
    waiting = Job("late", PROMPT, SamplingParams(2), queue_deadline_s=time.monotonic() + 0.05)
    ends = []
    generator.between_tokens = lambda: ends.append((waiting.has_ended, running.usage.completion_tokens))
    running.deadline_s = time.monotonic() + 0.2
    run(generator, running, waiting)
    assert isinstance(outcome(waiting)[1].error, QueueTimeoutError)
    assert isinstance(outcome(running)[1].error, RequestTimeoutError)
    assert any(has_ended for has_ended, _ in ends)


def test_a_job_that_nobody_bounded_ends_at_its_deadline_with_its_text(model_folder):
    generator = SerialEngine(load(model_folder("mistral")))
    job = Job("open", PROMPT, SamplingParams(900, ignore_eos=True), is_open=True)

    def between_tokens() -> None:
        if job.usage.completion_tokens == 5:
            job.deadline_s = time.monotonic() - 1

    generator.between_tokens = between_tokens
    run(generator, job)
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


def test_fail_all_ends_the_active_job_at_its_next_token(model_folder):
    generator = SerialEngine(load(model_folder("mistral")))
    job, waiting = greedy_job(PROMPT, 300), greedy_job(PROMPT, 3)
    generator.between_tokens = lambda: generator.fail_all(ShuttingDownError("stopping"))
    run(generator, job, waiting)
    assert isinstance(outcome(waiting)[1].error, ShuttingDownError)
    assert isinstance(outcome(job)[1].error, ShuttingDownError)
    assert job.usage.completion_tokens == 1
