"""On the GPU, in float32: the engine's greedy tokens are those of ``generate``, whichever runner decodes."""

from __future__ import annotations

import random

import pytest

from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run

pytestmark = pytest.mark.gpu
NUM_NEW = 16


@pytest.mark.parametrize("family", SLOT_FAMILIES)
@pytest.mark.parametrize("max_running", [1, 4, 64])
@pytest.mark.parametrize("runner", ["eager", "bucketed", "graphs"])
def test_greedy_output_equals_generate(model_folder, monkeypatch, family, max_running, runner):
    model = load(model_folder(family), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32")
    log = TokenLog(monkeypatch)
    rng = random.Random(max_running)
    jobs = [greedy_job(random_prompt(rng, rng.randrange(1, 300)), NUM_NEW) for _ in range(min(2 * max_running, 70))]
    run(generator_of(model, max_running=max_running, runner=runner, overlap_text=runner == "graphs"), *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)


@pytest.mark.parametrize("runner", ["eager", "bucketed", "graphs"])
def test_drafts_reused_prefixes_and_growth_change_no_token(model_folder, monkeypatch, runner):
    model = load(model_folder("qwen2"), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32")
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=3, chunk=64, drafts=4, runner=runner)
    long = random_prompt(random.Random(1), 500)
    jobs = [greedy_job(prompt, 40) for prompt in (long, [*long[:300], 9, 10], [40, 41, 42, 43] * 10, long)]
    for job in jobs:
        run(generator, job)
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 40, eos_token_id=None)
