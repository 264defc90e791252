"""Whole passes by compiled C++ of other kinds of layers than Llama's: windows, further norms, layers without turns."""

from __future__ import annotations

import random
import shutil

import pytest
import torch

from app.core.settings import load_settings
from app.engine.runners.compiled import NativePasses
from app.models.checkpoint.loader import load_checkpoint
from app.models.compiled.steps.step_graph import parts_of
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import unpack_in_pieces
from app.models.weights.quantization import quantize
from tests.native_passes import COMPILER
from tests.thinned import few_of
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.native_comparison import compare_passes, runners_of
from tests.unit.engine.test_native_runner import packages as packages
from tests.unit.engine.test_native_runner import prepared
from tests.unit.models.test_fused_layers import OTHERS, WINDOWS, of_family

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")

# GLM-4.5's layers are not alike, and its router knows groups.
PASSED = [family for family in OTHERS if family != "glm4_moe"]
SERVED = [
    "gemma3",
    "qwen3",
    "smollm3",
    "olmo3",
    "exaone4",
    "cohere2",
    "gemma2",
    "glm",
    "mistral",
    "gpt_oss",
    "qwen3_moe",
]


@pytest.mark.parametrize("family", [*SERVED[:1], *(pytest.param(one, marks=pytest.mark.slow) for one in SERVED[1:])])
def test_greedy_tokens_are_those_of_generate_beyond_windows_cold_and_warm(model_folder, monkeypatch, packages, family):
    made, _ = packages
    ready = prepared(model_folder(family), FORKLIFT_MAX_BATCH_SIZE="5", FORKLIFT_PREFILL_CHUNK_TOKENS="50")
    assert isinstance(ready.engine.runner, NativePasses)
    assert (ready.engine_name, ready.dropped, ready.is_compiled) == ("mixed", (), True)
    log, model = TokenLog(monkeypatch), load(model_folder(family))
    made[-1].sizes.clear()
    rng = random.Random(7)
    cold = [random_prompt(rng, length) for length in (1, 16, 33, 64, 97, 150)]
    for prompts in (cold, [[*cold[4], 9, 11], [*cold[5], 9], [*cold[3][:40], *cold[1]], cold[2]]):
        jobs = [greedy_job(prompt, 24) for prompt in prompts]
        run(ready.engine, *jobs)
        for job in jobs:
            assert log.of(job) == greedy_reference(model, job.prompt_ids, 24, eos_token_id=None)
    assert jobs[0].usage.cached_tokens > 0
    # Prompts, rows and both.
    assert {5, 50} <= set(made[-1].sizes)
    assert max(made[-1].sizes) > 50


@torch.inference_mode()
@pytest.mark.parametrize("family", few_of(PASSED, 4))
def test_every_kind_of_pass_gives_what_the_eager_one_gives(family):
    checkpoint = of_family(family, **OTHERS[family][0])
    assert fuse_layers(checkpoint) == 2
    compare_passes(checkpoint, 2e-5)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("family", ["gemma3_text", "olmo3", "cohere2", "gpt_oss", "qwen3_moe"])
def test_so_it_does_in_bfloat16(family):
    checkpoint = of_family(family, torch.bfloat16, **OTHERS[family][0])
    fuse_layers(checkpoint)
    compare_passes(checkpoint, 6e-2)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("num_experts", [2, 7, 16])
@pytest.mark.parametrize("family", ["gpt_oss", "mixtral", "qwen3_moe"])
def test_experts_of_any_number_give_what_the_eager_ones_give(family, num_experts):
    """Of 16 many have no token in a small pass; of 2 every token takes both."""
    counts = {"num_experts": num_experts, "num_local_experts": num_experts, "moe_intermediate_size": 44}
    windows = WINDOWS if family == "gpt_oss" else {}
    checkpoint = of_family(family, **counts, **windows, num_experts_per_tok=2, intermediate_size=52)
    assert fuse_layers(checkpoint) == 2
    compare_passes(checkpoint, 2e-5)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "kind", "tolerance"), [("float32", "int8", 5e-2), ("bfloat16", "int4", 8e-2)])
def test_experts_keep_the_models_dtype_where_all_else_is_codes(model_folder, dtype, kind, tolerance):
    environ = {"FORKLIFT_DTYPE": dtype, "FORKLIFT_QUANTIZATION": kind, "FORKLIFT_COMPILE": "never"}
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("qwen3_moe")), **environ})
    checkpoint = load_checkpoint(settings, lambda _: None)
    fuse_layers(checkpoint)
    quantize(checkpoint, kind, 1)
    unpack_in_pieces(checkpoint, lambda: None)
    assert checkpoint.model.base_model.layers[0].mlp.experts.down_proj.dtype == checkpoint.dtype
    compare_passes(checkpoint, tolerance)


@torch.inference_mode()
def test_states_that_are_no_numbers_disturb_no_other_row():
    """A router can choose by none of what it gives then; the tokens of other rows stay what they are."""
    checkpoint = of_family("gpt_oss", **OTHERS["gpt_oss"][0])
    fuse_layers(checkpoint)
    runner, _ = runners_of(checkpoint)
    runner.prefill(0, [5, 6, 7], 0)
    runner.prefill(1, [8, 9], 0)
    expected = runner.decode([[5], [6]], [3, 2])
    for layer in runner.cache.row_layers:
        layer.reserve(4)[0][0].fill_(torch.nan)
    found = runner.decode([[5], [6]], [3, 2])
    assert not found[0].isfinite().any()
    assert torch.equal(found[1], expected[1])


def test_layers_with_experts_of_another_kind_have_no_pass():
    checkpoint = of_family("glm4_moe", **OTHERS["glm4_moe"][0])
    fuse_layers(checkpoint)
    assert "experts" in str(parts_of(checkpoint))
