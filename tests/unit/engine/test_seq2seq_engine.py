"""Encoder-decoder models: who begins beside texts that run, when, and that each is what it is alone."""

from __future__ import annotations

import pytest

from app.core.settings import load_settings
from app.core.tasks.seq2seq_jobs import Decoding, Seq2SeqJob
from app.core.work.job_events import Failed, Finished
from app.core.work.sampling_params import SamplingParams
from app.engine.seq2seq import seq2seq_engine
from app.engine.seq2seq.seq2seq_engine import MOST_BATCHES, MOST_WAIT_S, Seq2SeqEngine
from app.models.checkpoint.loader import load_checkpoint
from app.models.encoders.seq2seq_model import Seq2SeqModel

TEXTS = ["def load(folder):", "a", "the tokenizer of a model with random weights", "return x"]


class Clock:
    """A second passes at every step."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture(scope="module")
def model(model_folder):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("t5"))})
    return Seq2SeqModel("tiny", load_checkpoint(settings, lambda _: None), settings.max_context_tokens)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(model, clock):
    return Seq2SeqEngine(model, max_rows=4, clock=clock, sleep=clock.sleep)


def job_of(model, text: str, num_new: int = 12, num_beams: int = 1, name: str = "t") -> Seq2SeqJob:
    decoding = Decoding({"num_beams": num_beams}, num_beams, num_new if num_beams > 1 else None)
    return Seq2SeqJob(name, model.read(text), SamplingParams(num_new, ignore_eos=True), decoding)


def step(engine, clock, count: int = 1, took_s: float = 0.01) -> None:
    for _ in range(count):
        engine.step()
        clock.now_s += took_s


def finish(engine, clock) -> None:
    while engine.has_work:
        step(engine, clock)


def text_of(job: Seq2SeqJob) -> str:
    events = job.next_events(0)
    assert isinstance(events[-1], Finished), events
    return "".join(getattr(event, "text", "") for event in events)


def alone(model, job: Seq2SeqJob) -> str:
    clock = Clock()
    engine = Seq2SeqEngine(model, max_rows=1, clock=clock, sleep=clock.sleep)
    engine.add(job)
    finish(engine, clock)
    return text_of(job)


def has_started(job: Seq2SeqJob) -> bool:
    return job.timings.started_s is not None


def test_a_newcomer_waits_half_of_its_own_time_at_most_and_begins_beside_those_that_run(model, engine, clock):
    running, newcomer = job_of(model, TEXTS[0], 60), job_of(model, TEXTS[2], 20)
    engine.add(running)
    step(engine, clock, 5)
    engine.add(newcomer)
    step(engine, clock, 10)
    assert not has_started(newcomer)
    step(engine, clock, 3)
    assert has_started(newcomer) and not running.has_ended
    step(engine, clock, 22)
    assert newcomer.has_ended and not running.has_ended
    finish(engine, clock)
    assert text_of(newcomer) == alone(model, job_of(model, TEXTS[2], 20))
    assert text_of(running) == alone(model, job_of(model, TEXTS[0], 60))


def test_who_comes_shortly_before_the_end_begins_with_all_others_that_wait(model, engine, clock):
    first = job_of(model, TEXTS[0], 10)
    engine.add(first)
    step(engine, clock, 6)
    others = [job_of(model, text, 10) for text in TEXTS[1:]]
    for job in others:
        engine.add(job)
    step(engine, clock, 4)
    assert not any(map(has_started, others)) or first.has_ended
    step(engine, clock, 3)
    assert all(map(has_started, others)) and len(engine._batches) == 1
    finish(engine, clock)
    assert [text_of(job) for job in others] == [alone(model, job_of(model, text, 10)) for text in TEXTS[1:]]


def test_nobody_waits_longer_than_the_bound_however_long_its_text_may_be(model, engine, clock):
    running, newcomer = job_of(model, TEXTS[0], 90), job_of(model, TEXTS[1], 90)
    engine.add(running)
    step(engine, clock, 1, took_s=0.1)
    engine.add(newcomer)
    step(engine, clock, int(MOST_WAIT_S / 0.1) + 2, took_s=0.1)
    assert has_started(newcomer) and not running.has_ended
    finish(engine, clock)


def test_beams_and_plain_texts_go_forward_side_by_side(model, engine, clock):
    searched, plain = job_of(model, TEXTS[0], 60, num_beams=3), job_of(model, TEXTS[2], 12)
    engine.add(searched)
    step(engine, clock, 3)
    engine.add(plain)
    step(engine, clock, 25)
    assert plain.has_ended and not searched.has_ended
    finish(engine, clock)
    assert text_of(searched) == alone(model, job_of(model, TEXTS[0], 60, num_beams=3))
    assert text_of(plain) == alone(model, job_of(model, TEXTS[2], 12))


@pytest.mark.slow
def test_rows_batches_and_sources_are_bounded_together(model, clock, monkeypatch):
    engine = Seq2SeqEngine(model, max_rows=16, clock=clock, sleep=clock.sleep)
    jobs = [job_of(model, TEXTS[0], 80, name=str(number)) for number in range(MOST_BATCHES + 3)]
    for job in jobs:
        engine.add(job)
        step(engine, clock, 4, took_s=1.0)
    assert len(engine._batches) == MOST_BATCHES and sum(map(has_started, jobs)) == MOST_BATCHES
    monkeypatch.setattr(seq2seq_engine, "MAX_SOURCE_TOKENS", 0)
    finish(engine, clock)
    assert all(isinstance(job.next_events(0)[-1], Finished) for job in jobs)


def test_a_full_engine_lets_the_first_in_line_begin_first(model, clock, monkeypatch):
    engine = Seq2SeqEngine(model, max_rows=2, clock=clock, sleep=clock.sleep)
    long, short = job_of(model, " ".join(TEXTS * 2), 10, name="long"), job_of(model, "a", 10, name="short")
    running = job_of(model, TEXTS[0], 80, name="running")
    monkeypatch.setattr(seq2seq_engine, "MAX_SOURCE_TOKENS", len(running.prompt_ids) + len(short.prompt_ids) + 1)
    for job in (running, long, short):
        engine.add(job)
        step(engine, clock, 3, took_s=1.0)
    assert not has_started(long) and not has_started(short)
    while not long.has_ended:
        step(engine, clock, took_s=1.0)
    assert running.has_ended and not short.has_ended
    finish(engine, clock)


def test_in_a_shared_step_one_batch_goes_forward(model, engine, clock):
    first, second = job_of(model, TEXTS[0], 30), job_of(model, TEXTS[2], 30)
    engine.add(first)
    step(engine, clock, took_s=1.0)
    engine.add(second)
    step(engine, clock, 3, took_s=1.0)
    assert len(engine._batches) == 2
    counts = [batch.num_steps for batch in engine._batches]
    engine.step(is_shared=True)
    engine.step(is_shared=True)
    assert sorted(batch.num_steps for batch in engine._batches) == sorted(count + 1 for count in counts)
    finish(engine, clock)


def test_everybody_fails_when_all_work_is_cancelled(model, engine, clock):
    jobs = [job_of(model, text, 40, name=text) for text in TEXTS[:2]]
    for job in jobs:
        engine.add(job)
        step(engine, clock, 3, took_s=1.0)
    from app.core.errors import shutting_down

    engine.fail_all(shutting_down())
    assert not engine.has_work
    assert all(isinstance(job.next_events(0)[-1], Failed) for job in jobs)
