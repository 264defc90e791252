"""Plays that every runner is asked to give the tokens of ``generate`` in: joins, shared prefixes, growth, many rows,
adapters, schedules.
"""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import strategies as st

from app.core.errors import ShuttingDownError
from app.core.work.job_events import Event, Finished, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.runners.interface import Runner
from app.models.text_model import TextModel
from app.models.weights.adapters.adapter_bank import AdapterBank
from tests.tiny_adapters import save_adapter
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, random_prompt, run
from tests.unit.engine.test_adapters import MAX_BYTES, job_of, references

LEFT = ShuttingDownError("left", retry_after_s=1)


def engine_on(model: TextModel, runner: Runner, *, chunk: int = 70, drafts: int = 0) -> BatchedEngine:
    """An engine with as many rows as ``runner`` has."""
    num_rows = runner.cache.num_rows
    return BatchedEngine(model, BatchOptions(num_rows, chunk, num_draft_tokens=drafts), runner)


def require_tokens_of_generate(model: TextModel, log: TokenLog, jobs: list[Job]) -> None:
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)


def run_with_joins(engine: BatchedEngine, jobs: list[Job], rng: random.Random) -> None:
    """Jobs arrive one by one while others decode."""
    to_come = list(jobs)
    while to_come or engine.has_work:
        if to_come and rng.random() < 0.4:
            engine.add(to_come.pop(0))
        engine.step()


def play_joins(
    model: TextModel, engine: BatchedEngine, log: TokenLog, *, num_prompts: int = 6, seed: int = 5
) -> list[Job]:
    """Prompts of all lengths, one that comes twice, one that goes on behind another, one that shares its beginning."""
    rng = random.Random(seed)
    prompts = [random_prompt(rng, rng.choice((1, 3, 17, 65, 200))) for _ in range(num_prompts)]
    prompts += [prompts[0], [*prompts[5], 9], prompts[3][:40] + prompts[2]]
    jobs = [greedy_job(prompt, rng.randrange(6, 20)) for prompt in prompts]
    run_with_joins(engine, jobs, rng)
    require_tokens_of_generate(model, log, jobs)
    return jobs


def play_growth(model: TextModel, engine: BatchedEngine, log: TokenLog) -> list[Job]:
    """The cache grows twice while rows decode."""
    jobs = [greedy_job(random_prompt(random.Random(i), length), 30) for i, length in enumerate((250, 500, 240, 20))]
    run(engine, *jobs)
    require_tokens_of_generate(model, log, jobs)
    return jobs


def play_many(model: TextModel, engine: BatchedEngine, log: TokenLog, num_rows: int) -> None:
    """As many rows decode together as there are."""
    rng = random.Random(num_rows)
    jobs = [greedy_job(random_prompt(rng, rng.randrange(1, 30)), 24) for _ in range(num_rows)]
    run(engine, *jobs)
    require_tokens_of_generate(model, log, jobs)


def play_adapters(base: Path, engine: BatchedEngine, log: TokenLog, model: TextModel, folder: Path) -> None:
    """Rows of two adapters and of none beside each other, then one alone that has none."""
    folders = [save_adapter(folder / f"a{seed}", base, "llama", seed=seed, rank=4 + seed) for seed in range(2)]
    rng = random.Random(3)
    wanted = [*folders, None, folders[0], None, folders[1]]
    prompts = [random_prompt(rng, rng.randrange(2, 40)) for _ in wanted]
    expected = references(base, wanted, prompts)
    run(engine, before := greedy_job(prompts[2], 12))
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    engine.use_adapters(bank)
    jobs = [job_of(prompt, bank, folder) for prompt, folder in zip(prompts, wanted, strict=True)]
    run(engine, *jobs)
    run(engine, behind := greedy_job(prompts[2], 12))
    assert [log.of(job) for job in jobs] == expected
    assert log.of(before) == log.of(behind) == expected[2]


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


def require_answers_of_the_eager_runner(model: TextModel, schedule, runner: str) -> None:
    """A job that is left has got as far as the steps until then took it: one answer is the beginning of the other."""
    for ours, theirs in zip(jobs_of(model, schedule, runner), jobs_of(model, schedule, "eager"), strict=True):
        (tokens, text, end), (other_tokens, other_text, other_end) = result(ours), result(theirs)
        shorter = min(len(tokens), len(other_tokens))
        assert tokens[:shorter] == other_tokens[:shorter]
        if isinstance(end, Finished) and isinstance(other_end, Finished):
            assert (text, end) == (other_text, other_end)


def result(job: Job) -> tuple[list[int], str, Event]:
    """Tokens, text and end of a job that has ended."""
    events = job.next_events(0)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    tokens = [entry.token for delta in deltas for entry in delta.logprobs]
    return tokens, "".join(delta.text for delta in deltas), events[-1]


def jobs_of(model: TextModel, schedule, runner: str) -> list[Job]:
    """The jobs of a schedule, worked off."""
    max_running, drafts, plan = schedule
    engine = generator_of(model, max_running=max_running, chunk=64, drafts=drafts, runner=runner)
    base = random_prompt(random.Random(5), 300)
    jobs, leaving = [], []
    for i, (joins, length, num_new, stays, heat) in enumerate(plan):
        for _ in range(joins):
            step(engine, leaving)
        # Every other prompt shares a beginning with the others: rows are reused and copied.
        prompt = base[:length] if i % 2 else random_prompt(random.Random(i), length)
        jobs.append(Job("schedule", prompt, SamplingParams(num_new, heat, seed=i, ignore_eos=True, num_logprobs=0)))
        engine.add(jobs[-1])
        if stays is not None:
            leaving.append([stays, jobs[-1]])
    while engine.has_work:
        step(engine, leaving)
    return jobs


def step(engine: BatchedEngine, leaving: list) -> None:
    for entry in leaving:
        entry[0] -= 1
        if entry[0] == 0:
            entry[1].cancel(LEFT)
    engine.step()
