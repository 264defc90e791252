"""The families that people run, loaded as a server loads them: alone and together, cold and warm, streamed and not."""

from __future__ import annotations

import random

import pytest

from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from tests.unit.engine import test_states
from tests.unit.engine.driver import TokenLog, greedy_reference, random_prompt
from tests.unit.engine.test_preparation import prepared

# Some test below runs each of these in the default suite, in one way; here all of them run in every way.
pytestmark = [pytest.mark.slow, *test_states.pytestmark]
NAMED = {
    "Gemma 3": "gemma3",
    "Gemma 3n": "gemma3n",
    "Gemma 4": "gemma4",
    "gpt-oss": "gpt_oss",
    "Mistral": "mistral",
    "StarCoder2": "starcoder2",
    "Llama 4": "llama4",
    "Qwen3": "qwen3",
    "Qwen3-MoE": "qwen3_moe",
    "Qwen3-Next": "qwen3_next",
    "Qwen3.5": "qwen3_5",
    "Granite 4 hybrid": "granite4",
    "LFM2": "lfm2",
    "Mamba 2": "mamba2",
    "SmolLM3": "smollm3",
    "DeepSeek V3": "deepseek_v3",
    "GLM-4.5": "glm4_moe",
    "OLMo 3": "olmo3",
    "Cohere 2": "cohere2",
    "EXAONE 4": "exaone4",
}
LENGTHS = (1, 16, 64, 97, 110, 40)
WAYS = [(1, 32), *(pytest.param(*way, marks=pytest.mark.chaos) for way in ((2, 16), (5, 23), (16, 64)))]


@pytest.mark.parametrize(("rows", "chunk"), WAYS)
@pytest.mark.parametrize("family", NAMED)
def test_a_named_family_answers_as_generate_does(model_folder, monkeypatch, family, rows, chunk):
    environ = {"FORKLIFT_MAX_BATCH_SIZE": str(rows), "FORKLIFT_PREFILL_CHUNK_TOKENS": str(chunk)}
    ready = prepared(model_folder(NAMED[family]), **environ, FORKLIFT_COMPILE="never", FORKLIFT_DTYPE="float32")
    assert (ready.engine_name, ready.dropped) == ("mixed", ())
    rng, log = random.Random(rows), TokenLog(monkeypatch)
    cold = [random_prompt(rng, length) for length in LENGTHS]
    warm = [cold[4], [*cold[4], 9, 11], [*cold[3], 9], [*cold[2][:40], *cold[5]]]
    for prompts in (cold, warm):
        jobs = [job(prompt, rng) for prompt in prompts]
        to_come = list(jobs)
        while to_come or ready.engine.has_work:
            if to_come and rng.random() < 0.4:
                ready.engine.add(to_come.pop(0))
            ready.engine.step()
        for one in jobs:
            assert log.of(one) == greedy_reference(
                ready.model, one.prompt_ids, one.params.max_new_tokens, eos_token_id=None
            )
    assert sum(one.usage.cached_tokens for one in jobs) > 0


def job(prompt: list[int], rng: random.Random) -> Job:
    """Read along or not."""
    params = SamplingParams(rng.randrange(2, 16), ignore_eos=True)
    return Job("test", prompt, params, is_streamed=rng.random() < 0.5)
