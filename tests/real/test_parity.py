"""SmolLM2 in float32: every prompt gets the tokens that ``generate`` gives, however it is served."""

from __future__ import annotations

import pytest

from app.models.text_model import TextModel
from app.models.weights.packing import PackedLinear
from tests.real.prompts import CHAT, CHINESE, CODE
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, run
from tests.unit.engine.test_parity import served

NUM_NEW = 24
DTYPE = {"FORKLIFT_DTYPE": "float32"}


@pytest.fixture(scope="module")
def prompts(smollm2) -> list[list[int]]:
    model = load(smollm2)
    chats = [model.encode_chat([{"role": "user", "content": text}]) for text in CHAT]
    found = chats + [model.encode(text) for text in CODE + CHINESE]
    assert len(found) == 22
    return found


@pytest.fixture(scope="module")
def expected(smollm2, prompts) -> list[list[int]]:
    """By the model as transformers builds it. An end token is passed over by both."""
    model = load(smollm2, **DTYPE)
    return [greedy_reference(model, prompt, NUM_NEW, eos_token_id=None) for prompt in prompts]


@pytest.fixture(scope="module")
def model(smollm2) -> TextModel:
    return served(smollm2, **DTYPE)


def test_cold_and_warm_one_at_a_time(model, prompts, expected, monkeypatch):
    log, generator = TokenLog(monkeypatch), generator_of(model)
    for prompt, tokens in zip(prompts, expected, strict=True):
        cold, warm = greedy_job(prompt, NUM_NEW), greedy_job(prompt, NUM_NEW)
        run(generator, cold)
        run(generator, warm)
        assert log.of(cold) == log.of(warm) == tokens
        assert warm.usage.cached_tokens == len(prompt) - 1


@pytest.fixture(scope="module")
def model_for_many(smollm2) -> TextModel:
    """Laid out for many rows."""
    made = served(smollm2, 16, **DTYPE)
    layers = [one for one in made.checkpoint.model.modules() if isinstance(one, PackedLinear)]
    assert len(layers) > made.checkpoint.model.config.num_hidden_layers
    return made


@pytest.mark.parametrize("max_running", [4, 16])
def test_in_batches(model_for_many, prompts, expected, monkeypatch, max_running):
    log, generator = TokenLog(monkeypatch), generator_of(model_for_many, max_running=max_running, chunk=16)
    jobs = [greedy_job(prompt, NUM_NEW) for prompt in prompts]
    run(generator, *jobs)
    assert [log.of(job) for job in jobs] == expected
    assert any(
        one.packed is not None for one in model_for_many.checkpoint.model.modules() if isinstance(one, PackedLinear)
    )


@pytest.mark.parametrize("max_running", [1, 8])
def test_with_prompt_lookup(model, prompts, expected, monkeypatch, max_running):
    log, generator = TokenLog(monkeypatch), generator_of(model, max_running=max_running, drafts=4)
    jobs = [greedy_job(prompt, NUM_NEW) for prompt in prompts]
    run(generator, *jobs)
    assert [log.of(job) for job in jobs] == expected
