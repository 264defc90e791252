"""The bucketed runner gives the tokens of ``generate`` and of the eager runner, in a few shapes only."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from app.engine.runners.choose import make_runner
from app.engine.runners.graphs.fixed_shapes import powers_of_two, smallest
from tests.thinned import few_of
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import (
    TokenLog,
    generator_of,
    greedy_job,
    greedy_reference,
    load,
    random_prompt,
    run,
)
from tests.unit.engine.parity_plays import (
    play_growth,
    play_joins,
    require_answers_of_the_eager_runner,
    run_with_joins,
    schedules,
)


@pytest.mark.parametrize("family", few_of(SLOT_FAMILIES, 2))
@pytest.mark.parametrize("max_running", [*(pytest.param(few, marks=pytest.mark.slow) for few in (1, 3)), 16])
def test_greedy_output_with_joins_and_shared_prefixes_equals_generate(model_folder, monkeypatch, family, max_running):
    model = load(model_folder(family))
    engine = generator_of(model, max_running=max_running, chunk=70, runner="bucketed")
    play_joins(model, engine, TokenLog(monkeypatch), num_prompts=10, seed=max_running)


@pytest.mark.parametrize("family", ["qwen2", "codegen"])
def test_greedy_output_is_the_same_across_the_growth_of_the_cache(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    engine = generator_of(model, max_running=3, runner="bucketed")
    play_growth(model, engine, TokenLog(monkeypatch))
    assert engine.runner.cache.row_layers[0].capacity == 1024


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_drafts_take_the_eager_way_and_change_no_token(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    log = TokenLog(monkeypatch)
    jobs = [greedy_job(prompt, 40) for prompt in ([40, 41, 42, 43] * 8, [100] * 30, [7, 300, 9])]
    run(generator_of(model, max_running=3, chunk=20, drafts=5, runner="bucketed"), *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 40, eos_token_id=None)


def test_a_context_shorter_than_the_smallest_bucket_is_used_to_its_end(model_folder, monkeypatch):
    model = load(model_folder("gpt2"), FORKLIFT_MAX_CONTEXT_TOKENS="50")
    log = TokenLog(monkeypatch)
    job = greedy_job(random_prompt(random.Random(1), 30), 20)
    run(generator_of(model, max_running=2, runner="bucketed"), job)
    assert log.of(job) == greedy_reference(model, job.prompt_ids, 20, eos_token_id=None)


@pytest.fixture(scope="module")
def llama(model_folder):
    return load(model_folder("llama"))


@pytest.mark.slow
@settings(max_examples=25)
@given(schedule=schedules())
def test_any_schedule_gives_the_texts_and_ends_of_the_eager_runner(llama, schedule):
    require_answers_of_the_eager_runner(llama, schedule, "bucketed")


def test_passes_see_only_the_shapes_of_their_buckets(model_folder, monkeypatch):
    model = load(model_folder("qwen2"))
    generator = generator_of(model, max_running=6, chunk=64, runner="bucketed")
    seen = set()
    forward = model.checkpoint.model.forward

    def watched(*args, **fields):
        if fields["input_ids"].shape[1] == 1 and fields["attention_mask"] is not None:
            names = ("input_ids", "position_ids", "attention_mask")
            seen.add(tuple((fields[name].shape, fields[name].data_ptr()) for name in names))
        return forward(*args, **fields)

    monkeypatch.setattr(model.checkpoint.model, "forward", watched)
    rng = random.Random(3)
    for _ in range(2):
        jobs = [greedy_job(random_prompt(rng, rng.randrange(2, 700)), rng.randrange(2, 30)) for _ in range(24)]
        run_with_joins(generator, jobs, rng)
    shapes = {tuple(shape for shape, _ in one) for one in seen}
    allowed = {((n, 1), (n, 1), (n, 1, 1, length)) for n in (1, 2, 4, 6) for length in (256, 512, 1024)}
    assert shapes <= allowed
    assert len(shapes) > 4
    assert len(seen) == len(shapes), "a shape came with other buffers"


def test_only_the_rows_of_a_step_and_the_scratch_row_are_written(model_folder):
    model = load(model_folder("codegen"))
    runner = make_runner("bucketed", model.checkpoint, 4, 300)
    for row in range(4):
        runner.prefill(row, [20 + row] * 5, 0)
    layer = runner.cache.row_layers[-1]
    before = layer.keys.clone()
    runner.decode([[9], [9], [9]], [5, 3, 4])
    changed = (layer.keys != before).any(dim=1).any(dim=-1).nonzero().tolist()
    assert changed == [[0, 5], [1, 3], [2, 4], [4, 0]]


def test_buckets_are_powers_of_two_up_to_the_limit():
    assert powers_of_two(1, 6) == [1, 2, 4, 6]
    assert powers_of_two(256, 256) == [256]
    assert powers_of_two(256, 1024) == [256, 512, 1024]
    assert [smallest([1, 2, 4, 6], n) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]
