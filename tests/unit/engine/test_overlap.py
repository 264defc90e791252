"""Tokens that are read after the next pass was launched are the same tokens, and their text ends the same way."""

from __future__ import annotations

import random

import pytest
import torch

from app.core.errors import RequestTimeoutError
from app.core.work.job_events import Event, Failed, Finished, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import Constraint, SamplingParams
from app.engine.generation.prefill_budget import PrefillBudget
from app.engine.sampling.pending_tokens import Drawn
from app.models.text_model import TextModel
from tests.unit.engine.driver import TokenLog, generator_of, load, outcome, random_prompt, run

LATE = RequestTimeoutError("late")
CHANGES: list[dict[str, object]] = [
    {},
    {"temperature": 0.9, "seed": 3},
    {"stop": ("e", "\n")},
    {"truncate_before_pattern": ("[a-f]{2}",)},
    {"ignore_eos": False},
    {"num_logprobs": 2},
    {"temperature": 1.0, "seed": 1, "regex": "[a-z]{3,6}", "ignore_eos": False},
    {"stop_token_ids": frozenset(range(100, 250))},
    {"repetition_penalty": 1.2, "temperature": 0.7, "top_p": 0.9, "seed": 9},
]


@pytest.fixture(scope="module")
def qwen2(model_folder):
    model = load(model_folder("qwen2"))
    yield model
    model.constraints.close()


def jobs_of(model: TextModel, rng: random.Random) -> list[Job]:
    fields = [{"ignore_eos": True, **change} for change in CHANGES]
    for one in fields:
        if (regex := one.pop("regex", None)) is not None:
            one["grammar"] = model.constraints.compiled(Constraint("regex", str(regex)))
    return [
        Job("overlap", random_prompt(rng, rng.randrange(2, 60)), SamplingParams(rng.randrange(1, 25), **one))
        for one in fields * 2
    ]


def whole(job: Job) -> tuple[tuple[object, ...], list[float]]:
    """Text, end, number and ids of the tokens of an ended job, and their log-probabilities.

    How the text was cut does not count, nor what was in the cache: steps read as much of a prompt as time allows.
    """
    events: list[Event] = job.next_events(0)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    scores = [entry for delta in deltas for entry in delta.logprobs]
    text, tokens = "".join(delta.text for delta in deltas), [entry.token for entry in scores]
    return (text, events[-1], job.usage.completion_tokens, tokens), [entry.logprob for entry in scores]


@pytest.mark.parametrize(
    ("runner", "drafts", "max_running"),
    [
        ("eager", 0, 4),
        ("eager", 4, 1),
        *(pytest.param("eager", drafts, rows, marks=pytest.mark.slow) for drafts, rows in ((0, 1), (4, 4))),
        ("paged", 0, 4),
        *(pytest.param("paged", drafts, rows, marks=pytest.mark.slow) for drafts, rows in ((0, 1), (4, 1), (4, 4))),
        *(pytest.param("graphs", drafts, rows, marks=pytest.mark.slow) for drafts in (0, 4) for rows in (1, 4)),
    ],
)
def test_every_kind_of_request_gives_the_same_answer(qwen2, monkeypatch, max_running, drafts, runner):
    # How a prompt is cut follows from measured times, and log-probabilities differ by rounding with it.
    monkeypatch.setattr(PrefillBudget, "observe", lambda *_: None)
    plain, overlapped = jobs_of(qwen2, random.Random(4)), jobs_of(qwen2, random.Random(4))
    run(generator_of(qwen2, max_running=max_running, chunk=20, drafts=drafts, runner=runner), *plain)
    options = {"max_running": max_running, "chunk": 20, "drafts": drafts, "runner": runner, "overlap_text": True}
    run(generator_of(qwen2, **options), *overlapped)
    for ours, theirs in zip(map(whole, overlapped), map(whole, plain), strict=True):
        assert ours[0] == theirs[0]
        assert ours[1] == pytest.approx(theirs[1], abs=1e-4)


def test_the_next_pass_is_launched_before_tokens_are_read_and_their_text_is_made(model_folder, monkeypatch):
    model = load(model_folder("gpt2"))
    generator = generator_of(model, overlap_text=True)
    seen = []
    decode, decoder, read = generator.runner.decode, model.decoder, Drawn.read
    monkeypatch.setattr(generator.runner, "decode", lambda *args: seen.append("launch") or decode(*args))
    monkeypatch.setattr(Drawn, "read", lambda drawn: seen.append("read") or read(drawn))

    def seen_decoder(shown):
        decode_text = decoder(shown)
        return lambda ids: seen.append("text") or decode_text(ids)

    monkeypatch.setattr(model, "decoder", seen_decoder)
    generator.add(Job("order", [5, 6, 7], SamplingParams(4, ignore_eos=True)))
    generator.step()
    orders = []
    while generator.has_work:
        seen.clear()
        generator.step()
        orders.append(list(dict.fromkeys(seen)))
    # The first is launched and waits; the last has nothing behind it.
    assert orders == [["launch"], *[["launch", "read", "text"]] * 2, ["read", "text"]]


def test_a_row_whose_token_ends_it_is_dropped_a_step_later_and_the_others_go_on(qwen2, monkeypatch):
    """What ends jobs is read one step late: the pass that was launched with them gives them nothing."""
    rng = random.Random(8)
    ends = frozenset(range(60, 300))
    prompts = [random_prompt(rng, rng.randrange(2, 40)) for _ in range(6)]

    def answers(overlaps: bool) -> list[tuple[str, Event]]:
        jobs = [Job("ends", one, SamplingParams(30, 0.9, seed=i, stop_token_ids=ends)) for i, one in enumerate(prompts)]
        engine = generator_of(qwen2, max_running=3, chunk=64, overlap_text=overlaps)
        fed, decode = [], engine.runner.decode
        monkeypatch.setattr(engine.runner, "decode", lambda *args: fed.append(args[0]) or decode(*args))
        run(engine, *jobs)
        assert engine._pending is None
        assert any(isinstance(tokens, torch.Tensor) for tokens in fed) == overlaps
        return [outcome(job) for job in jobs]

    assert answers(True) == answers(False)


def test_a_pass_that_fails_behind_another_fails_its_rows_after_their_last_token(qwen2, monkeypatch):
    engine, log = generator_of(qwen2, max_running=2, overlap_text=True), TokenLog(monkeypatch)
    jobs = [Job("fails", [5, 6, 7 + i], SamplingParams(20, ignore_eos=True)) for i in range(2)]
    for job in jobs:
        engine.add(job)
    while engine._pending is None:
        engine.step()
    num_tokens = [len(log.of(job)) for job in jobs]
    with monkeypatch.context() as broken:
        broken.setattr(engine.runner, "decode", lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
        engine.step()
    assert [len(log.of(job)) for job in jobs] == [number + 1 for number in num_tokens]
    run(engine)
    assert all(isinstance(outcome(job)[1], Failed) for job in jobs)
    again = Job("works", [5, 6, 7], SamplingParams(4, ignore_eos=True))
    run(engine, again)
    assert isinstance(outcome(again)[1], Finished)


def test_who_waits_comes_in_and_who_is_too_late_is_told_while_others_decode(qwen2):
    engine = generator_of(qwen2, max_running=2, overlap_text=True)
    long = Job("long", [5, 6, 7], SamplingParams(40, ignore_eos=True))
    engine.add(long)
    for _ in range(5):
        engine.step()
    joins, late = (Job("joins", [9, 8, 7], SamplingParams(3, ignore_eos=True)) for _ in range(2))
    engine.add(joins)
    while not joins.has_ended:
        engine.step()
    assert not long.has_ended
    others = [Job("fills", [9, 8], SamplingParams(30, ignore_eos=True)), late]
    for job in others:
        engine.add(job)
    engine.step()
    engine.step()
    late.cancel(LATE)
    engine.step()
    engine.step()
    assert outcome(late)[1].error is LATE
    run(engine)
    assert isinstance(outcome(long)[1], Finished)


def test_what_was_accepted_goes_out_before_the_error_that_ends_a_job(model_folder):
    model = load(model_folder("llama"))
    jobs = [Job("left", [5, 6, 7, 8], SamplingParams(40, ignore_eos=True)) for _ in range(2)]
    for job, overlap in zip(jobs, (False, True), strict=True):
        generator = generator_of(model, overlap_text=overlap)
        generator.add(job)
        for _ in range(9):
            generator.step()
        job.cancel(LATE)
        generator.step()
    assert outcome(jobs[0]) == outcome(jobs[1])
