"""Whole passes by compiled C++ give what eager ones give: rows, prompts, both, drafts; a wrong one is left out."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from structlog.testing import capture_logs

from app.core.settings import load_settings
from app.engine.checks import features, steps
from app.engine.loading.build import Prepared, prepare
from app.engine.runners.compiled import NativeRunner
from app.engine.runners.mixed import MixedRunner
from app.models.checkpoint.loader import load_checkpoint
from app.models.compiled.native_build import kinds_of
from app.models.compiled.native_pass import NativePass
from app.models.compiled.steps.step_graph import parts_of
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import unpack_in_pieces
from app.models.weights.quantization import quantize
from tests.native_passes import COMPILER, native_pass
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.native_comparison import compare_passes

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")


class Counted(NativePass):
    """``sizes`` are the tokens of its passes; ``spoil`` changes what they give."""

    def __init__(self, made: NativePass):
        self.__dict__.update(made.__dict__)
        self.sizes: list[int] = []
        self.spoil = lambda logits: logits

    def run(self, tokens, cache):
        self.sizes.append(len(tokens.ids))
        return self.spoil(super().run(tokens, cache))


@pytest.fixture
def packages(monkeypatch):
    """Every model that could have a package has one: what ``find`` made of each."""
    made: list[Counted] = []
    spoils = {"spoil": lambda logits: logits}

    def find(checkpoint, _settings):
        parts = parts_of(checkpoint)
        if isinstance(parts, str):
            return parts
        made.append(Counted(native_pass(checkpoint, parts)))
        made[-1].spoil = spoils["spoil"]
        return made[-1]

    monkeypatch.setattr(steps, "find_step", find)
    monkeypatch.setattr(features, "find_step", find)
    monkeypatch.setattr(features, "has_better_code", lambda *_: True)
    return made, spoils


def prepared(folder, **environ) -> Prepared:
    settings = load_settings({"FORKLIFT_MODEL": str(folder), "FORKLIFT_COMPILE": "auto", **environ})
    return prepare(settings, lambda _: None)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_greedy_tokens_are_those_of_generate_whatever_runs_beside(model_folder, monkeypatch, packages, family):
    made, _ = packages
    ready = prepared(model_folder(family), FORKLIFT_MAX_BATCH_SIZE="6", FORKLIFT_PREFILL_CHUNK_TOKENS="50")
    assert isinstance(ready.engine.runner, NativeRunner)
    assert (ready.engine_name, ready.dropped, ready.is_compiled) == ("mixed", (), True)
    log, model = TokenLog(monkeypatch), load(model_folder(family))
    made[-1].sizes.clear()
    jobs = [
        greedy_job(random_prompt(random.Random(i), length), 30) for i, length in enumerate((1, 3, 30, 64, 250, 400))
    ]
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 30, eos_token_id=None)
    # Prompts, rows and both.
    assert {6, 50} <= set(made[-1].sizes)
    assert max(made[-1].sizes) > 50


def test_drafts_are_checked_by_whole_passes(model_folder, monkeypatch, packages):
    made, _ = packages
    ready = prepared(model_folder("llama"), FORKLIFT_PROMPT_LOOKUP="4", FORKLIFT_MAX_BATCH_SIZE="2")
    log, model = TokenLog(monkeypatch), load(model_folder("llama"))
    made[-1].sizes.clear()
    jobs = [greedy_job([5, 6, 7, 8] * 8 + [i], 24) for i in range(2)]
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 24, eos_token_id=None)
    assert any(size in (3, 4, 5, 6, 8, 10) for size in made[-1].sizes)


@pytest.mark.parametrize(
    "spoil",
    [lambda logits: logits + 0.05 * logits.roll(1, -1) * logits.abs().max(), lambda logits: logits * float("nan")],
    ids=["wrong", "nan"],
)
def test_a_pass_that_computes_something_else_is_left_out_with_a_warning(model_folder, monkeypatch, packages, spoil):
    _, spoils = packages
    spoils["spoil"] = spoil
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"))
    assert (ready.engine_name, ready.dropped, ready.is_compiled) == ("mixed", ("compiled",), False)
    assert [line["step"] for line in lines if line["event"] == "step_failed_check"] == ["compiled"]
    log, model, job = TokenLog(monkeypatch), load(model_folder("llama")), greedy_job([9, 8, 7], 12)
    run(ready.engine, job)
    assert log.of(job) == greedy_reference(model, [9, 8, 7], 12, eos_token_id=None)


def test_layers_with_room_for_unlike_numbers_of_entries_are_read_by_each_ones_own(model_folder, monkeypatch, packages):
    """As after a growth that memory was short for in its middle: code that reads with one stride would read wrongly."""
    made, _ = packages
    ready = prepared(model_folder("llama"))
    ready.engine.cache.row_layers[0].reserve(500)
    assert len({layer.capacity for layer in ready.engine.cache.row_layers}) == 2
    log, model, job = TokenLog(monkeypatch), load(model_folder("llama")), greedy_job([9, 8, 7] * 20, 12)
    made[-1].sizes.clear()
    run(ready.engine, job)
    assert log.of(job) == greedy_reference(model, job.prompt_ids, 12, eos_token_id=None)
    assert made[-1].sizes[0] == 60


@pytest.mark.parametrize(
    ("dtype", "kind", "tolerance"),
    [
        ("float32", "none", 1e-4),
        pytest.param("bfloat16", "none", 6e-2, marks=pytest.mark.slow),
        pytest.param("float16", "none", 1e-2, marks=pytest.mark.slow),
        pytest.param("float32", "int8", 5e-2, marks=pytest.mark.slow),
        pytest.param("bfloat16", "int4", 6e-2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "outliers"])
def test_every_kind_of_pass_gives_what_the_eager_one_gives(model_folder, family, dtype, kind, tolerance):
    environ = {"FORKLIFT_DTYPE": dtype, "FORKLIFT_QUANTIZATION": kind, "FORKLIFT_COMPILE": "never"}
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder(family)), **environ})
    checkpoint = load_checkpoint(settings, lambda _: None)
    fuse_layers(checkpoint)
    if kind != "none":
        quantize(checkpoint, kind, 1)
        unpack_in_pieces(checkpoint, lambda: None)
    with torch.inference_mode():
        compare_passes(checkpoint, tolerance)


@torch.inference_mode()
def test_threads_that_wait_for_each_other_longer_than_they_stay_awake_give_what_one_gives(model_folder):
    """More than there are cores: some are always late, and others take their parts."""
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("llama")), "FORKLIFT_COMPILE": "never"})
    checkpoint = load_checkpoint(settings, lambda _: None)
    fuse_layers(checkpoint)
    found, num_threads = [], torch.get_num_threads()
    try:
        for threads in (1, 7):
            torch.set_num_threads(threads)
            runner = NativeRunner(native_pass(checkpoint), checkpoint, 2, 64)
            MixedRunner.prefill(runner, 0, [5], 0)
            passes = [runner.prefill(0, list(range(40)), 1)]
            passes += [runner.decode([[token]], [41 + token])[:, 0] for token in range(6)]
            found.append(torch.cat(passes))
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(*found)


@pytest.mark.slow
@torch.inference_mode()
def test_sums_of_whole_numbers_do_not_overflow_where_all_inputs_and_weights_say_the_same(model_folder):
    """Then the bound on sums is reached: an input as a multiple of each weight's row."""
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("llama")), "FORKLIFT_DTYPE": "bfloat16"})
    checkpoint = load_checkpoint(settings, lambda _: None)
    for weight in checkpoint.model.parameters():
        weight.fill_(0.75)
    fuse_layers(checkpoint)
    runner, eager = NativeRunner(native_pass(checkpoint), checkpoint, 1, 64), MixedRunner(checkpoint, 1, 64)
    for one in (runner, eager):
        MixedRunner.prefill(one, 0, [5], 0)
    found, expected = (one.prefill(0, list(range(20)), 1).float() for one in (runner, eager))
    assert float(expected.min()) > 0
    assert torch.allclose(found, expected, rtol=0.02)


def test_there_is_no_pass_for_what_the_code_was_not_written_for(model_folder, monkeypatch):
    checkpoint = load_checkpoint(load_settings({"FORKLIFT_MODEL": str(model_folder("llama"))}), lambda _: None)
    fuse_layers(checkpoint)
    shape = parts_of(checkpoint).shape
    assert kinds_of(shape) == ("Float32", "Float32", "Float32")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert kinds_of(shape) is None
