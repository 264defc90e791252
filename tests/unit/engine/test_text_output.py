"""Text goes out at once for a lone stream, and in larger pieces when many run; nothing is lost or late."""

from __future__ import annotations

import time

import pytest

from app.core.errors import RequestTimeoutError
from app.core.work.job_events import Failed, Finished, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.text import text_output
from app.engine.text.text_output import Pace, TextOutput
from tests.unit.engine.driver import generator_of, greedy_job, load, outcome, run


@pytest.fixture
def model(model_folder):
    return load(model_folder("qwen2"))


def pieces(job: Job) -> list[str]:
    return [event.text for event in job.next_events(0) if isinstance(event, TextDelta)]


def test_a_lone_stream_gets_every_token_at_once(model):
    job = greedy_job([100] * 30, 20)
    generator = generator_of(model, max_running=4)
    generator.add(job)
    num_pieces = 0
    while generator.has_work:
        generator.step()
        num_pieces += len(pieces(job)) > 0
    assert num_pieces >= 10


def test_many_streams_get_larger_pieces_and_the_same_text(model, monkeypatch):
    prompts = [[30 + i, 31] for i in range(4)]
    lone = [greedy_job(prompt, 30) for prompt in prompts]
    for job in lone:
        run(generator_of(model), job)
    monkeypatch.setattr(text_output, "GAP_PER_SEQUENCE_S", 10.0)
    monkeypatch.setattr(text_output, "LONGEST_GAP_S", 10.0)
    together = [greedy_job(prompt, 30) for prompt in prompts]
    run(generator_of(model, max_running=4), *together)
    for job, expected in zip(together, lone, strict=True):
        found = pieces(job)
        assert "".join(found) == outcome(expected)[0]
        assert len(found) <= 4


def test_text_that_waits_goes_out_before_a_failure(model, monkeypatch):
    monkeypatch.setattr(text_output, "GAP_PER_SEQUENCE_S", 10.0)
    monkeypatch.setattr(text_output, "LONGEST_GAP_S", 10.0)
    generator = generator_of(model, max_running=2)
    jobs = [greedy_job([30, 31], 200), greedy_job([40, 41], 200)]
    for job in jobs:
        generator.add(job)
    for _ in range(30):
        generator.step()
    jobs[0].deadline_s = time.monotonic()
    generator.step()
    events = jobs[0].next_events(0)
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, RequestTimeoutError)
    assert len("".join(event.text for event in events[:-1])) > 20


def test_a_job_that_nobody_bounded_ends_at_its_deadline_with_its_text(model):
    generator = generator_of(model, max_running=2)
    jobs = [Job("open", [30 + i, 31], SamplingParams(200, ignore_eos=True), is_open=True) for i in range(2)]
    for job in jobs:
        generator.add(job)
    for _ in range(30):
        generator.step()
    jobs[0].deadline_s = time.monotonic()
    jobs[1].cancel(RequestTimeoutError("somebody else's"))
    generator.step()
    text, end = outcome(jobs[0])
    assert end == Finished("length")
    assert len(text) > 20
    assert isinstance(outcome(jobs[1])[1], Failed)


def test_a_gap_lets_text_wait_until_it_has_passed():
    job, pace = Job("o", [1], SamplingParams(5)), Pace()
    box = TextOutput(job, pace)
    pace.gap_s = 0.05
    box.add("a", ())
    box.add("b", ())
    assert pieces(job) == ["a"]
    time.sleep(0.06)
    box.add("c", ())
    assert pieces(job) == ["bc"]


def test_the_gap_grows_with_the_number_of_sequences_and_is_bounded():
    pace = Pace()
    gaps = []
    for num_running in (0, 1, 2, 16, 1000):
        pace.set(num_running)
        gaps.append(pace.gap_s)
    assert gaps[:2] == [0.0, 0.0]
    assert 0 < gaps[2] < gaps[3] < gaps[4] == text_output.LONGEST_GAP_S


def test_a_job_that_nobody_reads_along_gets_its_text_in_one_event(model):
    streamed = greedy_job([100] * 30, 20)
    whole = Job("whole", [100] * 30, streamed.params, is_streamed=False)
    run(generator_of(model), streamed, whole)
    events = whole.next_events(0)
    assert len(events) == 2
    assert events[0].text == outcome(streamed)[0]
