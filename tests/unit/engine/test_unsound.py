"""NaN at run time fails the request that it came for, counts, and is gone with it."""

from __future__ import annotations

import math

import pytest
import torch

from app.core.errors import InternalError
from app.core.metrics import Metrics
from app.core.settings import load_settings
from app.core.tasks.encoder_jobs import EncodeOptions, EncoderInput, EncoderJob
from app.core.work.job_events import Failed, Finished
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.serial import SerialEngine
from app.engine.loading.build import prepare
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, outcome, run

PROMPTS = [[40 + i, 9, 30, 70] for i in range(3)]
POISON = 333


@pytest.fixture
def model(model_folder):
    """A model that gives NaN from the token ``POISON`` on."""
    model = load(model_folder("llama"))
    embed = model.checkpoint.model.get_input_embeddings()
    embed.register_forward_hook(
        lambda _module, inputs, output: output.masked_fill((inputs[0] == POISON)[..., None], math.nan)
    )
    return model


def counting(generator) -> list[int]:
    counts = [0]

    def count() -> None:
        counts[0] += 1

    generator.guard.on_unsound = count
    return counts


@pytest.mark.parametrize("params", [{}, {"temperature": 0.8, "seed": 1}, {"num_prompt_logprobs": 2}])
def test_only_the_request_at_fault_fails_and_its_row_is_clean_afterwards(model, monkeypatch, params):
    generator = generator_of(model, max_running=3, chunk=5)
    counts, log = counting(generator), TokenLog(monkeypatch)
    bad = Job("bad", [50, POISON, 51, 52], SamplingParams(8, **params))
    good = [greedy_job(prompt, 8) for prompt in PROMPTS]
    run(generator, good[0], bad, good[1])
    run(generator, good[2], greedy_job([70, 71], 4), greedy_job([80, 81], 4))
    failed = bad.next_events(0)[-1]
    assert isinstance(failed, Failed) and isinstance(failed.error, InternalError)
    for job in good:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 8, eos_token_id=None)
    assert counts == [1]
    assert all(torch.isfinite(layer.keys).all() for layer in generator.runner.cache.row_layers)


def test_a_request_on_generate_fails_as_well(model):
    generator = SerialEngine(model)
    counts = counting(generator)
    bad, good = greedy_job([50, POISON], 4), greedy_job([50, 51], 4)
    run(generator, bad, good)
    assert isinstance(outcome(bad)[1], Failed)
    assert isinstance(outcome(good)[1], Finished)
    assert counts == [1]


@pytest.mark.parametrize("family", ["bert", "sentence"])
def test_an_encoder_fails_the_text_at_fault(model_folder, family):
    ready = prepare(load_settings({"FORKLIFT_MODEL": str(model_folder(family))}), lambda _: None)
    counts = counting(ready.engine)
    embed = ready.model.checkpoint.model.get_input_embeddings()
    embed.register_forward_hook(
        lambda _module, inputs, output: output.masked_fill((inputs[0] == 77)[..., None], math.nan)
    )
    mask = ready.model.mask_id
    bad, good = (
        EncoderJob(name, EncoderInput([5, token, mask]), EncodeOptions(2))
        for name, token in (("bad", 77), ("good", 78))
    )
    run(ready.engine, bad, good)
    assert isinstance(bad.next_events(0)[-1], Failed)
    assert isinstance(good.next_events(0)[-1], Finished)
    assert counts == [1]


def test_loads_dropped_steps_and_unsound_logits_are_counted():
    metrics = Metrics()
    metrics.count_engine("m", "batched", ("fused", "mixed"))
    metrics.count_unsound_logits("m")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.source().collect()
        for sample in metric.samples
    }
    assert samples[("forklift_engine_loads_total", "m", "batched")] == 1
    assert samples[("forklift_dropped_steps_total", "m", "fused")] == 1
    assert samples[("forklift_dropped_steps_total", "m", "mixed")] == 1
    assert samples[("forklift_unsound_logits_total", "m")] == 1
