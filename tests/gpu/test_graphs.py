"""On the GPU: CUDA graphs are captured, replayed, dropped when memory moves, and left out where they fail."""

from __future__ import annotations

import random

import pytest
import torch

from app.core.settings import load_settings
from app.engine.loading.build import prepare
from app.engine.runners.graphs import recorder as recorder_module
from app.engine.runners.graphs.recorder import CudaRecorder
from app.engine.runners.mixed import can_mix
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.test_bucketed_runner import run_with_joins

pytestmark = pytest.mark.gpu
KINDS = ["graphs", "paged"]


@pytest.mark.parametrize("family", SLOT_FAMILIES)
@pytest.mark.parametrize("runner", KINDS)
@pytest.mark.parametrize("overlaps", [False, True])
def test_replayed_steps_give_the_tokens_of_generate(model_folder, monkeypatch, family, runner, overlaps):
    model = load(model_folder(family), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32")
    if runner == "paged" and not can_mix(model.checkpoint):
        pytest.skip("its attention cannot be replaced")
    log, rng = TokenLog(monkeypatch), random.Random(5)
    engine = generator_of(model, max_running=5, chunk=70, runner=runner, overlap_text=overlaps)
    jobs = [greedy_job(random_prompt(rng, rng.choice((1, 3, 17, 65, 200))), rng.randrange(6, 20)) for _ in range(9)]
    run_with_joins(engine, jobs, rng)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)
    assert engine.runner.graphs.failure is None
    assert len(engine.runner.graphs) >= 3


def test_growth_drops_graphs_and_changes_no_token(model_folder, monkeypatch):
    model, log, told = (
        load(model_folder("qwen2"), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32"),
        TokenLog(monkeypatch),
        [],
    )
    engine = generator_of(model, max_running=3, runner="graphs")
    engine.runner.graphs.on_outcome = told.append
    jobs = [greedy_job(random_prompt(random.Random(i), length), 30) for i, length in enumerate((250, 500, 240, 20))]
    run(engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 30, eos_token_id=None)
    assert "dropped" in told and "wrong" not in told and "failed" not in told


@pytest.mark.parametrize("runner", KINDS)
def test_a_capture_that_fails_leaves_a_device_that_works(model_folder, monkeypatch, runner):
    """A pass that waits for the device inside a capture ends it; the stream is put back, and the step is made."""
    model, log = load(model_folder("llama"), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32"), TokenLog(monkeypatch)
    engine = generator_of(model, max_running=2, runner=runner)
    record = CudaRecorder.record

    def waiting(recorder, work):
        return record(recorder, lambda: work() + torch.ones(1, device="cuda").item() * 0)

    monkeypatch.setattr(CudaRecorder, "record", waiting)
    jobs = [greedy_job([5, 6, 7 + i], 8) for i in range(2)]
    run(engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 8, eos_token_id=None)
    assert len(engine.runner.graphs) == 0 and "raises" in engine.runner.graphs.failure
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    monkeypatch.undo()
    assert recorder_module.CudaRecorder.record is record


@pytest.mark.parametrize("family", ["llama", "xglm", "gemma3"])
def test_the_check_at_a_load_chooses_by_itself(model_folder, family):
    ready = prepare(
        load_settings(
            {"FORKLIFT_MODEL": str(model_folder(family)), "FORKLIFT_DEVICE": "cuda", "FORKLIFT_MAX_BATCH_SIZE": "4"}
        ),
        lambda _: None,
    )
    assert ready.dropped == ()
    assert ready.graphs is not None and len(ready.graphs) > 0
