"""Text that is made after the next pass was launched is the same text, and ends the same way."""

from __future__ import annotations

import random

import pytest

from app.core.errors import RequestTimeoutError
from app.core.work.job_events import Event, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import Constraint, SamplingParams
from app.engine.generation import batched as generation
from app.engine.generation.prefill_budget import PrefillBudget
from app.models.text_model import TextModel
from tests.unit.engine.driver import generator_of, load, outcome, random_prompt, run

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


@pytest.mark.parametrize("max_running", [1, 4])
@pytest.mark.parametrize("drafts", [0, 4])
@pytest.mark.parametrize("runner", ["eager", "bucketed"])
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


def test_text_is_made_between_the_launch_of_a_pass_and_the_reading_of_its_tokens(model_folder, monkeypatch):
    model = load(model_folder("gpt2"))
    generator = generator_of(model, overlap_text=True)
    seen = []
    decode, decoder, choose = generator.runner.decode, model.decoder, generation.choose
    monkeypatch.setattr(generator.runner, "decode", lambda *args: seen.append("launch") or decode(*args))
    monkeypatch.setattr(generation, "choose", lambda *args: seen.append("read") or choose(*args))

    def seen_decoder(shown):
        decode_text = decoder(shown)
        return lambda ids: seen.append("text") or decode_text(ids)

    monkeypatch.setattr(model, "decoder", seen_decoder)
    generator.add(Job("order", [5, 6, 7], SamplingParams(4, ignore_eos=True)))
    generator.step()
    seen.clear()
    generator.step()
    assert [seen[0], set(seen[1:-1]), seen[-1]] == ["launch", {"text"}, "read"]


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
