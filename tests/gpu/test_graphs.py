"""On the GPU: CUDA graphs are captured, replayed, dropped when memory moves, and left out where they fail."""

from __future__ import annotations

import pytest
import torch
from structlog.testing import capture_logs

from app.core.settings import load_settings
from app.engine.loading.build import prepare
from app.engine.loading.prepared import Prepared
from app.engine.runners.graphs import recorder as recorder_module
from app.engine.runners.graphs.recorder import CudaRecorder
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, run
from tests.unit.engine.parity_plays import play_growth, play_joins

pytestmark = pytest.mark.gpu
KINDS = ["graphs", "paged"]
# Each family that attends to blocks has kernels compiled for it, which takes some seconds.
REPLAYED = [
    *((family, "graphs", False) for family in SLOT_FAMILIES),
    *((family, "paged", False) for family in ("llama", "qwen2", "gpt2")),
    *(("llama", runner, True) for runner in KINDS),
]


@pytest.mark.parametrize(("family", "runner", "overlaps"), REPLAYED)
def test_replayed_steps_give_the_tokens_of_generate(model_folder, monkeypatch, family, runner, overlaps):
    model = load(model_folder(family), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32")
    engine = generator_of(model, max_running=5, chunk=70, runner=runner, overlap_text=overlaps)
    play_joins(model, engine, TokenLog(monkeypatch))
    assert engine.runner.graphs.failure is None
    assert len(engine.runner.graphs) >= 3


def test_growth_drops_graphs_and_changes_no_token(model_folder, monkeypatch):
    model, told = load(model_folder("qwen2"), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32"), []
    engine = generator_of(model, max_running=3, runner="graphs")
    engine.runner.graphs.on_outcome = told.append
    play_growth(model, engine, TokenLog(monkeypatch))
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


def prepared(folder, **environ: str) -> Prepared:
    given = {"FORKLIFT_MODEL": str(folder), "FORKLIFT_DEVICE": "cuda", "FORKLIFT_MAX_BATCH_SIZE": "4", **environ}
    return prepare(load_settings(given), lambda _: None)


@pytest.mark.parametrize("family", ["llama", "xglm", "gemma3"])
def test_the_check_at_a_load_chooses_by_itself(model_folder, family):
    ready = prepared(model_folder(family), FORKLIFT_COMPILE="never")
    assert ready.dropped == ()
    assert ready.graphs is not None and len(ready.graphs) > 0


def test_compiled_steps_are_measured_beside_plain_ones_and_none_is_wrong(model_folder):
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"))
    assert ready.dropped == ()
    assert [line for line in lines if line["event"] in ("compiled_steps_measured", "compiled_steps_not_used")]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_weights_of_8_bits_serve(model_folder, kind):
    pytest.importorskip("torchao", reason="torchao is not installed")
    environ = {"FORKLIFT_QUANTIZATION": kind, "FORKLIFT_COMPILE": "never"}
    ready = prepared(model_folder("llama"), **environ)
    assert (ready.dropped, ready.settings.quantization) == ((), kind)
    assert ready.graphs is not None and len(ready.graphs) > 0
