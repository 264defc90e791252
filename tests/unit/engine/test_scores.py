"""Log-probabilities of generated tokens and of prompts equal those of a plain forward pass."""

from __future__ import annotations

import pytest

from app.core.work.job_events import Finished, PromptScored, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.serial import SerialEngine
from tests.unit.engine.driver import generator_of, load, logits_of, run

PROMPT = [(i * 29) % 300 + 20 for i in range(40)]
ENGINES = {
    "slots": lambda model: generator_of(model, chunk=7),
    "drafts": lambda model: generator_of(model, chunk=64, drafts=4),
    "generate": SerialEngine,
}


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder("qwen2"))


def scored(model, engine: str, params: SamplingParams, prompt: list[int] = PROMPT) -> list:
    job = Job("scores", prompt, params)
    generator = ENGINES[engine](model)
    run(generator, Job("warm", prompt, SamplingParams(2)), job)
    return job.next_events(0)


@pytest.mark.parametrize("engine", ENGINES)
def test_generated_tokens_are_scored_by_the_raw_logits(model, engine):
    params = SamplingParams(12, temperature=0.7, top_k=20, seed=1, ignore_eos=True, num_logprobs=3)
    events = scored(model, engine, params)
    entries = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    tokens = [entry.token for entry in entries]
    assert len(tokens) == 12
    expected = logits_of(model, PROMPT + tokens).log_softmax(-1)[len(PROMPT) - 1 : -1]
    for entry, row in zip(entries, expected, strict=True):
        assert abs(entry.logprob - row[entry.token].item()) < 1e-4
        best = row.topk(3)
        assert [token for token, _ in entry.top] == best.indices.tolist()
        assert [value for _, value in entry.top] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("max_new_tokens", [0, 3])
def test_a_prompt_is_scored_from_its_second_token_on(model, engine, max_new_tokens):
    events = scored(model, engine, SamplingParams(max_new_tokens, ignore_eos=True, num_prompt_logprobs=2))
    assert isinstance(events[0], PromptScored)
    entries = events[0].logprobs
    assert [entry.token for entry in entries] == PROMPT[1:]
    expected = logits_of(model, PROMPT).log_softmax(-1)
    for i, entry in enumerate(entries):
        assert abs(entry.logprob - expected[i, entry.token].item()) < 1e-4
        assert [token for token, _ in entry.top] == expected[i].topk(2).indices.tolist()
    assert events[-1] == Finished("length")
    assert any(isinstance(event, TextDelta) for event in events) == (max_new_tokens > 0)


def test_a_prompt_of_one_token_has_no_scores(model):
    events = scored(model, "slots", SamplingParams(0, num_prompt_logprobs=0), [30])
    assert events == [PromptScored(()), Finished("length")]


def test_rows_of_one_step_get_as_many_alternatives_as_each_asked_for(model):
    wanted = [0, 3, None, 1]
    jobs = [Job("scores", PROMPT[i:], SamplingParams(5, ignore_eos=True, num_logprobs=n)) for i, n in enumerate(wanted)]
    run(generator_of(model, max_running=4), *jobs)
    for job, num_top in zip(jobs, wanted, strict=True):
        entries = [entry for event in job.next_events(0) if isinstance(event, TextDelta) for entry in event.logprobs]
        assert len(entries) == (0 if num_top is None else 5)
        assert all(len(entry.top) == num_top for entry in entries)
