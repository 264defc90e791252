"""On the GPU, in float32: the engine's greedy tokens are those of ``generate``, whichever runner decodes."""

from __future__ import annotations

import random
from functools import cache

import pytest

from app.models.text_model import TextModel
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run

pytestmark = pytest.mark.gpu
NUM_NEW = 16
RUNNERS = ["eager", "bucketed", "graphs"]
SIZES = [*((family, 4) for family in SLOT_FAMILIES), ("qwen2", 1), ("llama", 64)]


@pytest.fixture(scope="module")
def model_of(model_folder):
    """Each family once: what ``generate`` says is asked for once, too."""
    return cache(lambda family: load(model_folder(family), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32"))


@cache
def expected(model: TextModel, prompt: tuple[int, ...], num_new: int) -> list[int]:
    return greedy_reference(model, list(prompt), num_new, eos_token_id=None)


@pytest.mark.parametrize(("family", "max_running"), SIZES)
@pytest.mark.parametrize("runner", RUNNERS)
def test_greedy_output_equals_generate(model_of, monkeypatch, family, max_running, runner):
    model, log, rng = model_of(family), TokenLog(monkeypatch), random.Random(max_running)
    jobs = [greedy_job(random_prompt(rng, rng.randrange(1, 300)), NUM_NEW) for _ in range(min(2 * max_running, 70))]
    run(generator_of(model, max_running=max_running, runner=runner, overlap_text=runner == "graphs"), *jobs)
    for job in jobs:
        assert log.of(job) == expected(model, tuple(job.prompt_ids), NUM_NEW)


@pytest.mark.parametrize("runner", RUNNERS)
def test_drafts_reused_prefixes_and_growth_change_no_token(model_of, monkeypatch, runner):
    model, log = model_of("qwen2"), TokenLog(monkeypatch)
    generator = generator_of(model, max_running=3, chunk=64, drafts=4, runner=runner)
    long = random_prompt(random.Random(1), 500)
    jobs = [greedy_job(prompt, 40) for prompt in (long, [*long[:300], 9, 10], [40, 41, 42, 43] * 10, long)]
    for job in jobs:
        run(generator, job)
        assert log.of(job) == expected(model, tuple(job.prompt_ids), 40)
