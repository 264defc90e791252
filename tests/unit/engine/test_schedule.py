"""Random schedules of arrivals, cancellations, deadlines and failures: nothing is lost or mixed up."""

from __future__ import annotations

import random
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InternalError, QueueTimeoutError, RequestTimeoutError, ShuttingDownError
from app.core.work.job_events import Failed, Finished
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.prefill_budget import FIRST_TOKENS
from app.engine.generation.waiting import WaitingJobs
from app.engine.runners.mixed import MixedRunner
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, outcome, run

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "step", "step", "step", "cancel", "expire", "fail"]),
        st.integers(0, 10_000),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder("qwen2"))


@given(ACTIONS, st.integers(1, 4), st.sampled_from([7, 64]), st.sampled_from([0, 0, 4]))
@settings(max_examples=60)
def test_every_job_ends_once_and_has_only_its_own_tokens(model, references, actions, max_running, chunk, drafts):
    with pytest.MonkeyPatch.context() as patch:
        log = TokenLog(patch)
        generator = generator_of(model, max_running=max_running, chunk=chunk, drafts=drafts)
        jobs: list[Job] = []
        for action, number in actions:
            if action == "arrive":
                prompt = references.prompts[number % len(references.prompts)]
                jobs.append(greedy_job(prompt, 1 + number % 8))
                generator.add(jobs[-1])
            elif action == "step":
                generator.step()
            elif action == "fail":
                with patch.context() as broken:
                    broken.setattr(generator.runner, "_forward", _raise)
                    broken.setattr(generator.runner, "_mixed_logits", _raise)
                    generator.step()
            elif jobs and action == "cancel":
                jobs[number % len(jobs)].cancel(ShuttingDownError("gone"))
            elif jobs:
                jobs[number % len(jobs)].deadline_s = time.monotonic() - 1
        while generator.has_work:
            generator.step()
    for job in jobs:
        _, end = outcome(job)
        expected = references.of(job)
        assert log.of(job) == expected[: len(log.of(job))]
        assert isinstance(end, Finished) == (log.of(job) == expected)
    assert generator._scheduler.rows.num_free == max_running


class References:
    """Greedy continuations of a few prompts that share prefixes."""

    def __init__(self, model):
        rng = random.Random(1)
        base = [rng.randrange(8, 380) for _ in range(90)]
        self.prompts = [base[:5], base[:40], base, [*base[:40], 9, 10, 11], [20], base[3:30]]
        self._tokens = {tuple(p): greedy_reference(model, p, 8, eos_token_id=None) for p in self.prompts}

    def of(self, job: Job) -> list[int]:
        return self._tokens[tuple(job.prompt_ids)][: job.params.max_new_tokens]


@pytest.fixture(scope="module")
def references(model):
    return References(model)


def _raise(*_args: object, **_kwargs: object) -> torch.Tensor:
    raise RuntimeError("the model broke")


def test_jobs_are_served_in_the_order_of_their_arrival(model):
    generator = generator_of(model)
    jobs = [greedy_job([9, 8, 10], 3) for _ in range(5)]
    run(generator, *jobs)
    ends = [job.timings.finished_s for job in jobs]
    assert ends == sorted(ends)


def test_a_job_that_fails_leaves_the_next_one_unharmed(model, monkeypatch):
    log = TokenLog(monkeypatch)
    generator = generator_of(model)
    broken, whole = greedy_job([9, 8, 10], 6), greedy_job([9, 8, 10], 6)
    forward, calls = generator.runner._forward, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the model broke at token 3")
        return forward(*args, **kwargs)

    monkeypatch.setattr(generator.runner, "_forward", failing)
    run(generator, broken, whole)
    _, end = outcome(broken)
    assert isinstance(end, Failed)
    assert isinstance(end.error, InternalError)
    assert "broke" not in end.error.message
    assert len(log.of(broken)) == 2
    assert log.of(whole) == greedy_reference(model, [9, 8, 10], 6, eos_token_id=None)


def test_a_job_over_its_queue_deadline_never_starts(model):
    generator = generator_of(model)
    started = []
    job = Job("late", [9], SamplingParams(4), queue_deadline_s=0.0, on_started=lambda: started.append(1))
    run(generator, job)
    _, end = outcome(job)
    assert isinstance(end.error, QueueTimeoutError)
    assert not started


def test_a_deadline_ends_a_running_job_at_the_next_token(model):
    generator = generator_of(model)
    job = greedy_job([9, 8], 500)
    generator.add(job)
    for _ in range(3):
        generator.step()
    job.deadline_s = time.monotonic()
    generator.step()
    _, end = outcome(job)
    assert isinstance(end.error, RequestTimeoutError)
    assert not generator.has_work


def test_stop_strings_end_a_job_and_stay_out_of_its_text(model):
    generator = generator_of(model)
    free = greedy_job([30, 40, 50], 40)
    run(generator, free)
    text, _ = outcome(free)
    stop = text[10:13]
    stopped = Job("stop", [30, 40, 50], SamplingParams(40, ignore_eos=True, stop=(stop,)))
    run(generator, stopped)
    cut, end = outcome(stopped)
    assert end == Finished("stop")
    assert cut == text[: text.index(stop)]
    assert stopped.usage.completion_tokens < free.usage.completion_tokens


def test_a_stop_string_that_names_a_special_token_ends_a_job_there(model):
    special = model.tokenizer.convert_tokens_to_ids("<|im_start|>")
    free = greedy_job([30, 40, 50], 4)
    forced = Job("stop", [30, 40, 50], SamplingParams(9, ignore_eos=True, logit_bias=((special, 100.0),)))
    options = {"ignore_eos": True, "logit_bias": ((special, 100.0),)}
    stopped = Job("stop", [30, 40, 50], SamplingParams(9, stop=("<|im_start|>",), **options))
    run(generator_of(model), free, forced, stopped)
    assert outcome(forced) == ("", Finished("length"))
    assert outcome(stopped) == ("", Finished("stop"))
    assert stopped.usage.completion_tokens == 1


def test_an_end_token_finishes_a_job_unless_it_is_ignored(model, monkeypatch):
    tokens = greedy_reference(model, [30, 40, 50], 8, eos_token_id=None)
    monkeypatch.setattr(model, "eos_ids", frozenset({tokens[4]}))
    ended = Job("eos", [30, 40, 50], SamplingParams(8))
    ignored = greedy_job([30, 40, 50], 8)
    run(generator_of(model), ended, ignored)
    assert outcome(ended)[1] == Finished("stop")
    assert ended.usage.completion_tokens == tokens.index(tokens[4]) + 1
    assert outcome(ignored)[1] == Finished("length")


def test_a_long_prompt_is_prefilled_in_small_steps_while_others_run(model, monkeypatch):
    generator = generator_of(model, max_running=2, chunk=256)
    beside_others = note_chunks(generator, monkeypatch)
    stream, long = greedy_job([30, 40], 60), greedy_job([50 + i % 200 for i in range(300)], 1)
    generator.add(stream)
    generator.step()
    generator.add(long)
    while not long.has_ended:
        before = stream.usage.completion_tokens
        generator.step()
        assert stream.usage.completion_tokens == before + 1
    assert beside_others[0] == FIRST_TOKENS
    assert sum(beside_others) == 300


def note_chunks(generator, monkeypatch) -> list[int]:
    """Sizes of the pieces of prompts that share a pass with other sequences."""
    sizes: list[int] = []
    mixed = generator.runner.mixed

    def noted(tokens, starts, chunks):
        sizes.extend(len(chunk.tokens) for chunk in chunks)
        return mixed(tokens, starts, chunks)

    monkeypatch.setattr(generator.runner, "mixed", noted)
    return sizes


def test_prompts_share_a_pass_with_each_other_and_with_running_streams(model, monkeypatch):
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=4, chunk=64)
    sizes = note_chunks(generator, monkeypatch)
    jobs = [greedy_job([9 + i, 8, 10, 20 + i], 6) for i in range(4)]
    run(generator, *jobs)
    assert sizes == [4, 4, 4, 4]
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 6, eos_token_id=None)


def test_a_pass_over_many_sequences_that_fails_is_tried_for_each_alone(model, monkeypatch):
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=3)
    running, broken, whole = (greedy_job([9 + i, 8, 10], 6) for i in range(3))
    generator.add(running)
    generator.step()
    prefill = generator.runner.prefill

    def failing(row, tokens, start, **options):
        return _raise() if tokens == broken.prompt_ids else prefill(row, tokens, start, **options)

    monkeypatch.setattr(generator.runner, "_mixed_logits", _raise)
    monkeypatch.setattr(generator.runner, "prefill", failing)
    run(generator, broken, whole)
    assert isinstance(outcome(broken)[1], Failed)
    for job in (running, whole):
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 6, eos_token_id=None)


def test_a_model_whose_attention_cannot_be_replaced_is_given_separate_passes(model_folder, monkeypatch):
    model = load(model_folder("xglm"))
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=2)
    assert not isinstance(generator.runner, MixedRunner)
    jobs = [greedy_job([9 + i, 8, 10], 6) for i in range(3)]
    run(generator, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 6, eos_token_id=None)


def test_requests_take_turns_however_many_sequences_they_have(model):
    generator = generator_of(model, max_running=2)
    crowd = [greedy_job([9, 8, 10 + at], 3) for at in range(8)]
    for job in crowd:
        job.turn = "crowd"
        generator.add(job)
    lone = greedy_job([9, 8, 7], 3)
    run(generator, lone)
    assert sum(job.timings.finished_s < lone.timings.finished_s for job in crowd) <= 4


def test_waiting_jobs_end_in_the_middle_of_their_lines():
    waiting = WaitingJobs()
    jobs = [greedy_job([at], 1) for at in range(6)]
    for job in jobs:
        job.turn = jobs.index(job) % 2
        waiting.add(job)
    for job in (jobs[0], jobs[2], jobs[3]):
        job.cancel(InternalError())
    waiting.sweep(time.monotonic())
    assert len(waiting) == 3
    assert [waiting.start_next() for _ in range(3)] == [jobs[4], jobs[1], jobs[5]]
    assert len(waiting) == 0
