"""From settings to a warm model: memory is predicted, int8 is close to float32, failures are one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from app.core.errors import ModelLoadError, SettingsError
from app.core.settings import load_settings
from app.engine.checks import features
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.serial import SerialEngine
from app.engine.loading import build as preparation
from app.engine.loading.build import prepare
from app.engine.runners.mixed import MixedRunner
from app.models.weights.int4_linear import Int4Linear
from app.models.weights.int8_linear import Int8TileLinear, has_tiles
from app.models.weights.quantization import Int8Linear, quantize
from tests.unit.engine.driver import TokenLog, greedy_job, logits_of, run

PROMPT = [(i * 31) % 300 + 20 for i in range(60)]


def prepared(folder, **environ):
    settings = load_settings({"FORKLIFT_MODEL": str(folder), **environ})
    return prepare(settings, lambda _: None)


def test_the_kv_cache_is_predicted_to_the_byte(model_folder):
    ready = prepared(model_folder("qwen2"), FORKLIFT_MAX_BATCH_SIZE="3", FORKLIFT_MAX_CONTEXT_TOKENS="500")
    # 2 layers, keys and values, 2 heads of 16, float32
    assert ready.kv_memory.bytes_per_token == 2 * 2 * 2 * 16 * 4
    run(ready.engine, *(greedy_job(PROMPT, 440) for _ in range(3)))
    assert ready.engine.runner.cache.num_bytes == ready.kv_memory.max_bytes


def test_a_kv_cache_that_cannot_fit_stops_the_load(model_folder, monkeypatch):
    monkeypatch.setattr(preparation, "free_bytes", lambda _: 100_000)
    with pytest.raises(ModelLoadError, match="lower FORKLIFT_MAX_BATCH_SIZE or FORKLIFT_MAX_CONTEXT_TOKENS"):
        prepared(model_folder("qwen2"), FORKLIFT_MAX_BATCH_SIZE="64")


@pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*")
@pytest.mark.parametrize(
    ("family", "engine"), [("qwen2", BatchedEngine), ("mamba", BatchedEngine), ("rwkv", SerialEngine)]
)
def test_the_engine_follows_from_the_models_cache(model_folder, family, engine):
    ready = prepared(model_folder(family))
    assert type(ready.engine) is engine
    assert (ready.kv_memory is None) == (engine is SerialEngine)


@pytest.mark.parametrize("context", ["2", "9"])
def test_a_tiny_context_can_be_served(model_folder, context):
    ready = prepared(model_folder("qwen2"), FORKLIFT_MAX_CONTEXT_TOKENS=context)
    assert ready.model.context_tokens == int(context)


@pytest.mark.parametrize(("kind", "least"), [("int8", 0.98), ("int4", 0.9)])
@pytest.mark.parametrize(
    "family",
    [
        "llama",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "codegen", "qwen2", "xglm", "gpt_bigcode")),
    ],
)
@pytest.mark.parametrize("batch", ["1", pytest.param("4", marks=pytest.mark.slow)])
def test_quantised_models_are_close_to_float32(model_folder, family, kind, least, batch):
    exact = logits_of(prepared(model_folder(family)).model, PROMPT)
    ready = prepared(model_folder(family), FORKLIFT_QUANTIZATION=kind, FORKLIFT_MAX_BATCH_SIZE=batch)
    rounded = logits_of(ready.model, PROMPT)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > least
    assert isinstance(ready.engine, BatchedEngine)


@pytest.mark.parametrize("batch", ["1", "4"])
def test_int8_takes_tiles_where_several_sequences_share_a_step_and_the_cpu_has_them(model_folder, batch):
    ready = prepared(model_folder("qwen2"), FORKLIFT_QUANTIZATION="int8", FORKLIFT_MAX_BATCH_SIZE=batch)
    in_tiles = batch == "4" and has_tiles()
    assert isinstance(ready.model.checkpoint.model.lm_head, Int8TileLinear) is in_tiles


def test_int8_keeps_a_tied_embedding_of_its_own_in_bfloat16(model_folder):
    model = prepared(model_folder("gpt2"), FORKLIFT_QUANTIZATION="int8").model.checkpoint.model
    embedding = model.get_input_embeddings()
    assert embedding.weight.dtype == torch.bfloat16
    assert embedding(torch.tensor([[1, 2]])).dtype == torch.float32
    assert isinstance(model.lm_head, Int8Linear | Int8TileLinear)


def test_int4_keeps_the_output_layer_in_int8_and_a_tied_embedding_in_bfloat16(model_folder):
    model = prepared(model_folder("gpt2"), FORKLIFT_QUANTIZATION="int4").model.checkpoint.model
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert isinstance(model.lm_head, Int8Linear | Int8TileLinear)
    kinds = {type(module) for module in model.transformer.h.modules() if not list(module.children())}
    assert Int4Linear in kinds
    assert not kinds & {torch.nn.Linear, Conv1D}


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_quantised_model_generates_what_its_own_forward_pass_says(model_folder, monkeypatch, kind):
    ready = prepared(model_folder("qwen2"), FORKLIFT_QUANTIZATION=kind)
    log = TokenLog(monkeypatch)
    job = greedy_job(PROMPT, 1)
    run(ready.engine, job)
    assert log.of(job) == [int(logits_of(ready.model, PROMPT)[-1].argmax())]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_what_quantising_saved_is_said(model_folder, monkeypatch, kind):
    said = []
    monkeypatch.setattr(features.log, "info", lambda event, **values: said.append((event, values)))
    prepared(model_folder("llama"), FORKLIFT_QUANTIZATION=kind)
    [(_, values)] = [entry for entry in said if entry[0] == "quantized"]
    assert values["to"] == kind
    assert values["bytes_after"] < 0.6 * values["bytes_before"]


@pytest.mark.parametrize(("kind", "dtype"), [("int8", "bfloat16"), ("int4", "float32"), ("int4", "float16")])
def test_quantisation_with_another_dtype_is_refused(kind, dtype):
    with pytest.raises(SettingsError, match=f"QUANTIZATION={kind} computes in"):
        load_settings({"FORKLIFT_QUANTIZATION": kind, "FORKLIFT_DTYPE": dtype})


@pytest.mark.parametrize("kind", ["int4", "file"])
def test_quantisation_that_another_device_has_not_is_refused(kind):
    checkpoint = SimpleNamespace(device=torch.device("cuda", 0), model=torch.nn.Module())
    with pytest.raises(ModelLoadError, match=f"QUANTIZATION={kind} works on the CPU only; on a GPU: int8 and fp8"):
        quantize(checkpoint, kind, 1)


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_a_quantised_model_too_reads_prompts_beside_running_streams(model_folder, quantization):
    ready = prepared(model_folder("qwen2"), FORKLIFT_QUANTIZATION=quantization)
    assert isinstance(ready.engine.runner, MixedRunner)
