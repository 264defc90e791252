"""Prompt lookup changes how many passes a text takes, never the text."""

from __future__ import annotations

import random

import pytest

from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.drafts.prompt_lookup import PromptLookup
from app.engine.generation.sequence import Sequence
from tests.thinned import few_of
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, outcome, run

CYCLE = [40, 41, 42, 43, 44, 45, 46, 47]


@pytest.mark.parametrize("family", few_of(SLOT_FAMILIES, 2))
def test_greedy_output_with_drafts_equals_generate(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    log = TokenLog(monkeypatch)
    rng = random.Random(2)
    prompts = [CYCLE * 4, [rng.randrange(8, 380) for _ in range(50)], CYCLE * 2 + [9], [100] * 30]
    jobs = [greedy_job(prompt, 40) for prompt in prompts]
    run(generator_of(model, max_running=3, chunk=20, drafts=5), *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 40, eos_token_id=None)


def test_right_guesses_save_passes(model_folder, monkeypatch):
    model = load(model_folder("gpt2"))
    job = greedy_job([100] * 30, 60)
    generator = generator_of(model, drafts=6)
    passes = []
    decode = generator.runner.decode
    monkeypatch.setattr(generator.runner, "decode", lambda *args: passes.append(1) or decode(*args))
    run(generator, job)
    assert job.usage.completion_tokens == 60
    assert len(passes) < 40


@pytest.mark.parametrize("max_running", few_of([4, 1], 1))
def test_a_seed_gives_the_same_text_with_and_without_drafts(model_folder, max_running):
    model = load(model_folder("qwen2"))

    def jobs() -> list[Job]:
        return [
            Job("s", CYCLE * 3, SamplingParams(40, 0.8, top_p=0.9, repetition_penalty=1.1, seed=seed, ignore_eos=True))
            for seed in range(4)
        ]

    plain, drafted = jobs(), jobs()
    run(generator_of(model, max_running=max_running), *plain)
    run(generator_of(model, max_running=max_running, drafts=4), *drafted)
    assert [outcome(job) for job in drafted] == [outcome(job) for job in plain]


def test_a_row_that_moves_takes_its_accepted_draft_along(model_folder, monkeypatch):
    """One sequence ends in the very step in which the guesses for another prove right."""
    model = load(model_folder("qwen2"))
    log = TokenLog(monkeypatch)
    ends, stays = greedy_job([30, 40, 50], 3), greedy_job([60, 61, 62, 63], 24)
    expected = greedy_reference(model, stays.prompt_ids, 24, eos_token_id=None)

    def foreseen(sequence: Sequence, room: int) -> list[int]:
        done = sequence.job.usage.completion_tokens
        return expected[done : done + min(room, 4)] if sequence.job is stays else []

    monkeypatch.setattr(Sequence, "draft", foreseen)
    run(generator_of(model, max_running=2, drafts=4), ends, stays)
    assert log.of(ends) == greedy_reference(model, ends.prompt_ids, 3, eos_token_id=None)
    assert log.of(stays) == expected


def test_a_draft_never_writes_behind_the_context(model_folder, monkeypatch):
    model = load(model_folder("gpt2"), FORKLIFT_MAX_CONTEXT_TOKENS="64")
    log = TokenLog(monkeypatch)
    job = greedy_job([100] * 30, 34)
    run(generator_of(model, drafts=8), job)
    assert log.of(job) == greedy_reference(model, job.prompt_ids, 34, eos_token_id=None)


def test_a_draft_copies_what_followed_the_longest_known_ending():
    lookup = PromptLookup([1, 2, 3, 4, 9, 3, 4, 7, 2, 3, 4], num_draft_tokens=2)
    assert lookup.draft(10) == [9, 3]
    assert lookup.draft(1) == [9]


def test_an_ending_that_is_new_gives_no_draft():
    assert PromptLookup([1, 2, 3, 4], 4).draft(10) == []
    assert PromptLookup([5], 4).draft(10) == []
