"""Several jobs under one place: what they bring, how they end, and when the place is given back."""

from __future__ import annotations

import threading

import pytest

from app.core.errors import InternalError, OverloadedError
from app.core.work.job_events import TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.http.application.connection import HttpCaller
from app.http.requests.generating import make_jobs
from app.http.requests.limits import Deadlines
from app.http.requests.planning import Plan, with_seed_of
from app.http.requests.running import RunningRequest
from tests.contract.doubles import ScriptedModel


class Place:
    """Stands in for an admitted request; what is submitted runs nowhere."""

    caller = HttpCaller("r", {})
    handle = model = ScriptedModel()
    is_lost = False
    deadlines = Deadlines(None, 100.0, float("inf"))

    def keep(self, num_sequences: int) -> None:
        self.num_kept = num_sequences

    def __init__(self):
        self.num_starts = self.num_releases = 0

    def start(self):
        self.num_starts += 1

    def release(self):
        self.num_releases += 1

    def submit(self, job):
        job.was_submitted = True


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def request_of_four(place):
    return RunningRequest(place, num_per_prompt=2)


@pytest.fixture
def jobs(request_of_four):
    plans = [Plan([1, 2], SamplingParams(4))] * 2 + [Plan([1, 2, 3], SamplingParams(4))] * 2
    return make_jobs(plans, request_of_four)


@pytest.fixture
def generation(request_of_four, jobs):
    generation = request_of_four
    generation.plan(jobs)
    generation.start()
    assert all(job.was_submitted for job in jobs)
    yield generation
    for job in jobs:
        if not job.has_ended:
            job.fail(InternalError())
    generation.close()


def work(job, text):
    job.start()
    for character in text:
        job.count_token()
        job.emit(TextDelta(character))


def test_pieces_tell_which_job_they_come_from(generation, jobs):
    work(jobs[2], "xy")
    work(jobs[0], "a")
    batch = generation.next_batch(1.0)
    assert [(piece.index, piece.text) for piece in batch.pieces] == [(0, "a"), (2, "xy")]
    assert not batch.is_last
    assert generation.next_batch(0.0) is None


def test_the_request_ends_when_the_last_job_has_ended(generation, jobs, place):
    for number, job in enumerate(reversed(jobs)):
        assert place.num_releases == 0
        work(job, str(number))
        job.finish("length")
        batch = generation.next_batch(1.0)
        assert [piece.finish_reason for piece in batch.pieces] == ["length"]
    assert batch.is_last and place.num_releases == 1
    assert [output.text for output in generation.outputs] == ["3", "2", "1", "0"]
    assert generation.timings().finished_s == jobs[0].timings.finished_s


def test_a_reader_is_woken_by_any_job(generation, jobs):
    threading.Timer(0.05, lambda: work(jobs[3], "z")).start()
    assert generation.require_batch().pieces[0].index == 3


def test_where_one_job_fails_the_others_are_stopped_and_the_place_waits_for_them(generation, jobs, place, monkeypatch):
    monkeypatch.setattr("app.http.requests.running.RELEASE_WAIT_S", 0.01)
    jobs[1].fail(InternalError())
    batch = generation.next_batch(1.0)
    assert isinstance(batch.error, InternalError)
    assert all(job.stop_cause(0.0) is batch.error for job in jobs if job is not jobs[1])
    assert place.num_releases == 0, "the engine still works on the others"


def test_prompts_are_counted_once_and_completions_all(generation, jobs):
    for job in jobs:
        work(job, "ab")
    usage = generation.usage()
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 8, 13)


def test_after_the_first_start_the_other_jobs_wait_as_long_as_they_must(generation, jobs, place):
    assert {job.queue_deadline_s for job in jobs} == {100.0}
    jobs[1].start()
    assert place.num_starts == 1
    assert [job.stop_cause(200.0) for job in jobs] == [None] * 4


def test_the_timings_of_a_request_are_its_first_start_and_first_token(generation, jobs):
    work(jobs[1], "a")
    jobs[0].start()
    timings = generation.timings()
    assert timings.started_s == jobs[1].timings.started_s
    assert timings.first_token_s == jobs[1].timings.first_token_s
    assert timings.finished_s is None


def test_leaving_stops_every_job(generation, jobs, place, monkeypatch):
    monkeypatch.setattr("app.http.requests.running.RELEASE_WAIT_S", 0.01)
    generation.close()
    assert all(job.stop_cause(0.0) is not None for job in jobs)


def test_choices_of_a_seeded_request_differ_by_their_seeds():
    assert with_seed_of(SamplingParams(1, seed=5), 2).seed == 7
    assert with_seed_of(SamplingParams(1), 2).seed is None


def test_a_generation_without_jobs_gives_its_place_back_at_once(place):
    generation = RunningRequest(place)
    generation.fail(OverloadedError("full"))
    assert place.num_releases == 1


def test_jobs_that_stand_alone_wake_nobody():
    job = Job("r", [1], SamplingParams(1))
    job.emit(TextDelta("a"))
    assert job.next_events(0)
