"""The slot engine and transformers' own ``generate`` agree token for token, in float32."""

from __future__ import annotations

import random

import pytest

from app.models.text_model import TextModel
from app.models.weights import packing
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import pack
from tests.thinned import few_of
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run

NUM_NEW = 24


def served(folder, num_rows: int = 1, **environ: str) -> TextModel:
    """The model as the engine gets it by default: layers fused, weights laid out."""
    model = load(folder, **environ)
    fuse_layers(model.checkpoint)
    pack(model.checkpoint, num_rows=num_rows)
    return model


@pytest.mark.parametrize("family", few_of(SLOT_FAMILIES, 3))
@pytest.mark.parametrize("chunk", few_of([50, 17, 512], 1))
def test_serial_greedy_output_equals_generate(model_folder, monkeypatch, family, chunk):
    model = load(model_folder(family))
    log = TokenLog(monkeypatch)
    generator = generator_of(model, chunk=chunk)
    rng = random.Random(chunk)
    for length in (1, 17, 300):
        prompt = random_prompt(rng, length)
        job = greedy_job(prompt, NUM_NEW)
        run(generator, job)
        assert log.of(job) == greedy_reference(model, prompt, NUM_NEW, eos_token_id=None)


@pytest.mark.parametrize("family", few_of(SLOT_FAMILIES, 2))
@pytest.mark.parametrize("max_running", [*(pytest.param(few, marks=pytest.mark.slow) for few in (2, 5)), 16])
def test_batched_greedy_output_with_random_joins_equals_generate(model_folder, monkeypatch, family, max_running):
    model = load(model_folder(family))
    log = TokenLog(monkeypatch)
    # As if the weights were large.
    monkeypatch.setattr(packing, "LEAST_BYTES", 0)
    generator = generator_of(served(model_folder(family), max_running), max_running=max_running, chunk=70)
    rng = random.Random(max_running)
    prompts = [random_prompt(rng, rng.choice((1, 3, 17, 64, 65, 200))) for _ in range(12)]
    prompts += [prompts[0], prompts[5] + [9], prompts[3][:40] + prompts[2], prompts[5]]
    jobs = [greedy_job(prompt, rng.randrange(1, NUM_NEW)) for prompt in prompts]
    to_come = list(jobs)
    while to_come or generator.has_work:
        if to_come and rng.random() < 0.4:
            generator.add(to_come.pop(0))
        generator.step()
    for job, prompt in zip(jobs, prompts, strict=True):
        expected = greedy_reference(model, prompt, job.params.max_new_tokens, eos_token_id=None)
        assert log.of(job) == expected
    again = greedy_job(prompts[-1], NUM_NEW)
    run(generator, again)
    assert log.of(again) == greedy_reference(model, prompts[-1], NUM_NEW, eos_token_id=None)
    assert again.usage.cached_tokens == len(prompts[-1]) - 1


@pytest.mark.parametrize("reuse_prefix", [True, False])
def test_a_warm_prefix_changes_no_token(model_folder, monkeypatch, reuse_prefix):
    model = load(model_folder("qwen2"))
    log = TokenLog(monkeypatch)
    generator = generator_of(model, chunk=64, reuse_prefix=reuse_prefix)
    prompt = random_prompt(random.Random(3), 150)
    first, again, longer = (greedy_job(p, NUM_NEW) for p in (prompt, prompt, [*prompt, 11, 12]))
    for job in (first, again, longer):
        run(generator, job)
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)
    assert again.usage.cached_tokens == (149 if reuse_prefix else 0)
    assert longer.usage.cached_tokens == (150 if reuse_prefix else 0)


def test_a_repetition_penalty_equals_generates(model_folder, monkeypatch):
    model = load(model_folder("llama"))
    log = TokenLog(monkeypatch)
    prompt = random_prompt(random.Random(5), 40)
    job = greedy_job(prompt, NUM_NEW)
    object.__setattr__(job.params, "repetition_penalty", 1.3)
    run(generator_of(model), job)
    assert log.of(job) == greedy_reference(model, prompt, NUM_NEW, eos_token_id=None, repetition_penalty=1.3)
    assert log.of(job) != greedy_reference(model, prompt, NUM_NEW, eos_token_id=None)


def test_prefixes_are_reused_by_their_owner_only(model_folder):
    generator = generator_of(load(model_folder("qwen2")), max_running=2)
    jobs = [greedy_job(list(range(10, 60)), 2) for _ in range(4)]
    for job, owner in zip(jobs, (b"a", b"b", b"a", b"b"), strict=True):
        job.owner = owner
        run(generator, job)
    assert [job.usage.cached_tokens for job in jobs] == [0, 0, 49, 49]


def test_a_prefix_of_somebody_who_is_still_busy_is_not_copied(model_folder):
    generator = generator_of(load(model_folder("qwen2")), max_running=2)
    busy, other = greedy_job(list(range(10, 60)), 30), greedy_job(list(range(10, 60)), 2)
    busy.owner, other.owner = b"a", b"b"
    generator.add(busy)
    for _ in range(3):
        generator.step()
    run(generator, other)
    assert other.usage.cached_tokens == 0
