"""The bucketed runner gives the tokens of ``generate`` and of the eager runner, in a few shapes only."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import ShuttingDownError
from app.core.work.job_events import Event, Finished, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.runners.choose import make_runner
from app.engine.runners.graphs.fixed_shapes import powers_of_two, smallest
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

NUM_NEW = 20
LEFT = ShuttingDownError("left", retry_after_s=1)


def run_with_joins(generator, jobs: list[Job], rng: random.Random) -> None:
    """Jobs arrive one by one while others decode."""
    to_come = list(jobs)
    while to_come or generator.has_work:
        if to_come and rng.random() < 0.4:
            generator.add(to_come.pop(0))
        generator.step()


@pytest.mark.parametrize("family", SLOT_FAMILIES)
@pytest.mark.parametrize("max_running", [*(pytest.param(few, marks=pytest.mark.slow) for few in (1, 3)), 16])
def test_greedy_output_with_joins_and_shared_prefixes_equals_generate(model_folder, monkeypatch, family, max_running):
    model = load(model_folder(family))
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=max_running, chunk=70, runner="bucketed")
    rng = random.Random(max_running)
    prompts = [random_prompt(rng, rng.choice((1, 3, 17, 65, 200))) for _ in range(10)]
    prompts += [prompts[0], [*prompts[5], 9], prompts[3][:40] + prompts[2], prompts[5]]
    jobs = [greedy_job(prompt, rng.randrange(1, NUM_NEW)) for prompt in prompts]
    run_with_joins(generator, jobs, rng)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)


@pytest.mark.parametrize("family", ["qwen2", "codegen"])
def test_greedy_output_is_the_same_across_the_growth_of_the_cache(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=3, runner="bucketed")
    jobs = [greedy_job(random_prompt(random.Random(i), length), 30) for i, length in enumerate((250, 500, 240, 20))]
    run(generator, *jobs)
    assert generator.runner.cache.row_layers[0].capacity == 1024
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 30, eos_token_id=None)


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


@st.composite
def schedules(draw) -> tuple[int, int, list[tuple[int, int, int, int | None, float]]]:
    """Slots, drafts, and jobs as (steps before it joins, prompt length, new tokens, steps until it is left, heat)."""
    job = st.tuples(
        st.integers(0, 6),
        st.sampled_from((1, 5, 33, 120, 255, 256, 300)),
        st.integers(1, 24),
        st.one_of(st.none(), st.integers(0, 12)),
        st.sampled_from((0.0, 0.0, 0.9)),
    )
    return draw(st.integers(1, 6)), draw(st.sampled_from((0, 0, 4))), draw(st.lists(job, min_size=1, max_size=8))


def result(job: Job) -> tuple[list[int], str, Event]:
    """Tokens, text and end of a job that has ended."""
    events = job.next_events(0)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    tokens = [entry.token for delta in deltas for entry in delta.logprobs]
    return tokens, "".join(delta.text for delta in deltas), events[-1]


def jobs_of(model, schedule, runner: str) -> list[Job]:
    """The jobs of a schedule, worked off."""
    max_running, drafts, plan = schedule
    generator = generator_of(model, max_running=max_running, chunk=64, drafts=drafts, runner=runner)
    base = random_prompt(random.Random(5), 300)
    jobs, leaving = [], []
    for i, (joins, length, num_new, stays, heat) in enumerate(plan):
        for _ in range(joins):
            step(generator, leaving)
        # Every other prompt shares a beginning with the others: rows are reused and copied.
        prompt = base[:length] if i % 2 else random_prompt(random.Random(i), length)
        jobs.append(Job("schedule", prompt, SamplingParams(num_new, heat, seed=i, ignore_eos=True, num_logprobs=0)))
        generator.add(jobs[-1])
        if stays is not None:
            leaving.append([stays, jobs[-1]])
    while generator.has_work:
        step(generator, leaving)
    return jobs


def step(generator, leaving: list) -> None:
    for entry in leaving:
        entry[0] -= 1
        if entry[0] == 0:
            entry[1].cancel(LEFT)
    generator.step()


@pytest.fixture(scope="module")
def llama(model_folder):
    return load(model_folder("llama"))


@settings(max_examples=25)
@given(schedule=schedules())
def test_any_schedule_gives_the_texts_and_ends_of_the_eager_runner(llama, schedule):
    """A job that is left has got as far as the steps until then took it: one answer is the beginning of the other."""
    for ours, theirs in zip(jobs_of(llama, schedule, "bucketed"), jobs_of(llama, schedule, "eager"), strict=True):
        (tokens, text, end), (other_tokens, other_text, other_end) = result(ours), result(theirs)
        shorter = min(len(tokens), len(other_tokens))
        assert tokens[:shorter] == other_tokens[:shorter]
        if isinstance(end, Finished) and isinstance(other_end, Finished):
            assert (text, end) == (other_text, other_end)


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
