"""From settings to a warm model: memory is predicted, int8 is close to float32, failures are one line."""

from __future__ import annotations

import pytest
import torch

from app.core.errors import ModelLoadError, SettingsError
from app.core.settings import load_settings
from app.engine import preparation
from app.engine.fallback import GenerateGenerator
from app.engine.generation import SlotGenerator
from app.engine.preparation import prepare
from tests.unit.engine.driver import TokenLog, greedy_job, logits_of, run

PROMPT = [(i * 31) % 300 + 20 for i in range(60)]


def prepared(folder, **environ):
    settings = load_settings({"FORKLIFT_MODEL": str(folder), **environ})
    return prepare(settings, lambda _: None, lambda: None)


def test_the_kv_cache_is_predicted_to_the_byte(model_folder):
    ready = prepared(model_folder("qwen2"), FORKLIFT_MAX_BATCH_SIZE="3", FORKLIFT_MAX_CONTEXT_TOKENS="500")
    # 2 layers, keys and values, 2 heads of 16, float32
    assert ready.kv_memory.bytes_per_token == 2 * 2 * 2 * 16 * 4
    run(ready.generator, *(greedy_job(PROMPT, 440) for _ in range(3)))
    assert ready.generator.runner.cache.num_bytes == ready.kv_memory.max_bytes


def test_a_kv_cache_that_cannot_fit_stops_the_load(model_folder, monkeypatch):
    monkeypatch.setattr(preparation, "free_bytes", lambda _: 100_000)
    with pytest.raises(ModelLoadError, match="lower FORKLIFT_MAX_BATCH_SIZE or FORKLIFT_MAX_CONTEXT_TOKENS"):
        prepared(model_folder("qwen2"), FORKLIFT_MAX_BATCH_SIZE="64")


@pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*")
@pytest.mark.parametrize(("family", "engine"), [("qwen2", SlotGenerator), ("mamba", GenerateGenerator)])
def test_the_engine_follows_from_the_models_cache(model_folder, family, engine):
    ready = prepared(model_folder(family))
    assert type(ready.generator) is engine
    assert (ready.kv_memory is None) == (engine is GenerateGenerator)


@pytest.mark.parametrize("context", ["2", "9"])
def test_a_tiny_context_can_be_served(model_folder, context):
    ready = prepared(model_folder("qwen2"), FORKLIFT_MAX_CONTEXT_TOKENS=context)
    assert ready.model.context_tokens == int(context)


@pytest.mark.parametrize("family", ["qwen2", "codegen", "xglm", "llama"])
def test_int8_is_close_to_float32(model_folder, family):
    exact = logits_of(prepared(model_folder(family)).model, PROMPT)
    ready = prepared(model_folder(family), FORKLIFT_QUANTIZATION="int8")
    rounded = logits_of(ready.model, PROMPT)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.98
    assert isinstance(ready.generator, SlotGenerator)


def test_int8_keeps_a_tied_embedding_of_its_own_in_bfloat16(model_folder):
    model = prepared(model_folder("gpt2"), FORKLIFT_QUANTIZATION="int8").model.checkpoint.model
    embedding = model.get_input_embeddings()
    assert embedding.weight.dtype == torch.bfloat16
    assert embedding(torch.tensor([[1, 2]])).dtype == torch.float32
    assert type(model.lm_head).__module__.startswith("torch.ao.nn.quantized")


def test_int8_generates_what_its_own_forward_pass_says(model_folder, monkeypatch):
    ready = prepared(model_folder("qwen2"), FORKLIFT_QUANTIZATION="int8")
    log = TokenLog(monkeypatch)
    job = greedy_job(PROMPT, 1)
    run(ready.generator, job)
    assert log.of(job) == [int(logits_of(ready.model, PROMPT)[-1].argmax())]


def test_int8_says_what_it_saved(model_folder, monkeypatch):
    said = []
    monkeypatch.setattr(preparation.log, "info", lambda event, **values: said.append((event, values)))
    prepared(model_folder("llama"), FORKLIFT_QUANTIZATION="int8")
    [(_, values)] = [entry for entry in said if entry[0] == "quantized"]
    assert values["int8_bytes"] < 0.5 * values["float32_bytes"]


def test_int8_with_another_dtype_is_refused():
    with pytest.raises(SettingsError, match="computes in float32"):
        load_settings({"FORKLIFT_QUANTIZATION": "int8", "FORKLIFT_DTYPE": "bfloat16"})
