"""The KV cache gives memory back after a peak, and not before a whole period without need has passed."""

from __future__ import annotations

import random

import pytest

from app.engine.kv.trimming import PERIOD_S, fitting
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run

RNG = random.Random(1)
SHORT, LONG = random_prompt(RNG, 30), random_prompt(RNG, 600)


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder("qwen2"))


def capacity(generator) -> int:
    return generator.runner.cache.capacity


def test_memory_of_a_peak_comes_back_after_a_whole_period_without_need(model):
    generator = generator_of(model, max_running=3)
    run(generator, greedy_job(SHORT, 4))
    at_rest_bytes = generator.runner.cache.num_bytes
    generator.rest(0.0)
    run(generator, greedy_job(LONG, 4))
    assert generator.runner.cache.num_bytes == 4 * at_rest_bytes
    assert generator.rest(PERIOD_S - 1) == 1
    assert generator.rest(PERIOD_S) == PERIOD_S
    assert capacity(generator) == 1024, "the peak was in the period that has just ended"
    assert generator.rest(2 * PERIOD_S) is None
    assert generator.runner.cache.num_bytes == at_rest_bytes


@pytest.mark.parametrize("runner", ["eager", "bucketed"])
def test_output_goes_on_unchanged_across_a_shrink(model, monkeypatch, runner):
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=2, runner=runner)
    run(generator, greedy_job(LONG, 4))
    generator.rest(0.0)
    job = greedy_job(SHORT, 60)
    generator.add(job)
    for at in range(10):
        generator.step()
        generator.rest(PERIOD_S * (at + 1))
    assert capacity(generator) == 256
    assert generator.has_work
    later = greedy_job(LONG, 20)
    run(generator, later)
    for ended in (job, later):
        expected = greedy_reference(model, ended.prompt_ids, ended.params.max_new_tokens, eos_token_id=None)
        assert log.of(ended) == expected


def test_a_free_row_offers_no_entry_that_was_given_back(model, monkeypatch):
    log = TokenLog(monkeypatch)
    generator = generator_of(model)
    run(generator, greedy_job(LONG, 2))
    for at in range(3):
        generator.rest(PERIOD_S * at)
    again = greedy_job(LONG, 8)
    run(generator, again)
    assert again.usage.cached_tokens == 256
    assert log.of(again) == greedy_reference(model, LONG, 8, eos_token_id=None)


def test_a_sequence_that_still_runs_keeps_its_room(model):
    generator = generator_of(model)
    generator.add(greedy_job(LONG, 400))
    for at in range(12):
        generator.step()
        generator.rest(PERIOD_S * at)
    assert capacity(generator) == 1024


def test_a_load_that_swings_within_a_period_copies_nothing(model, monkeypatch):
    generator = generator_of(model, reuse_prefix=False)
    shrunk = []
    shrink = generator.runner.cache.shrink
    monkeypatch.setattr(generator.runner.cache, "shrink", lambda size: shrunk.append(size) or shrink(size))
    generator.rest(0.0)
    for at in range(6):
        run(generator, greedy_job(SHORT, 2), greedy_job(LONG, 2))
        generator.rest(PERIOD_S * 0.9 * (at + 1))
    assert shrunk == []


def test_what_is_freed_is_handed_to_the_device(model, monkeypatch):
    generator = generator_of(model)
    given = []
    monkeypatch.setattr(generator._trimmer, "_give_back", lambda: given.append(generator.runner.cache.num_bytes))
    run(generator, greedy_job(LONG, 2))
    peak_bytes = generator.runner.cache.num_bytes
    for at in range(5):
        generator.rest(PERIOD_S * at)
    assert given == [peak_bytes // 4]


def test_a_context_below_the_smallest_buffer_is_never_trimmed(model_folder):
    small = load(model_folder("qwen2"), FORKLIFT_MAX_CONTEXT_TOKENS="40")
    generator = generator_of(small)
    run(generator, greedy_job(SHORT[:20], 4))
    assert [generator.rest(PERIOD_S * at) for at in range(3)] == [None, None, None]
    assert capacity(generator) == 40


def test_capacities_are_those_that_growth_gives():
    assert [fitting(n, 4096) for n in (0, 256, 257, 900, 5000)] == [256, 256, 512, 1024, 4096]
    assert fitting(0, 100) == 100
