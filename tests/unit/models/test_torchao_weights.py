"""8-bit weights by torchao go through the check at a load as all else; without torchao a load says what is missing.

On a CPU, where torchao's forms compute too; that they serve on GPUs alone is what ``quantize`` decides.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
import torch
from structlog.testing import capture_logs

from app.core.errors import ModelLoadError, SettingsError
from app.core.settings import load_settings
from app.engine.checks import features
from app.engine.checks.reference import BOUNDS, departure, divergence, plain_results, probe_tokens
from app.models.checkpoint.devices import choose_dtype
from app.models.weights.quantization import model_bytes, quantize
from app.models.weights.torchao_weights import CONFIGS, can_become, quantize_by_torchao
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, run
from tests.unit.engine.test_preparation import prepared

has_torchao = importlib.util.find_spec("torchao") is not None
needs_torchao = pytest.mark.skipif(not has_torchao, reason="torchao is not installed")


@dataclass
class Config:
    set_inductor_config: bool = True


def stand_in(monkeypatch, *, factor: float = 1.0) -> list[object]:
    """A torchao that rounds weights to 8 bits in place, and is off by ``factor``; the configs that it was given."""
    given: list[object] = []

    def quantize_(model, config, filter_fn) -> None:
        given.append(config)
        for name, layer in model.named_modules():
            if filter_fn(layer, name):
                scale = layer.weight.abs().amax(1, keepdim=True) / 127
                rounded = (layer.weight / scale).round() * scale * factor
                layer.weight = torch.nn.Parameter(rounded, requires_grad=False)

    package, module = ModuleType("torchao"), ModuleType("torchao.quantization")
    module.quantize_ = quantize_
    for name in CONFIGS.values():
        setattr(module, name, Config)
    package.quantization = module
    monkeypatch.setitem(sys.modules, "torchao", package)
    monkeypatch.setitem(sys.modules, "torchao.quantization", module)
    monkeypatch.setattr(features, "quantize", lambda checkpoint, kind, _num: quantize_by_torchao(checkpoint, kind))
    return given


@pytest.mark.parametrize("kind", CONFIGS)
def test_without_torchao_the_load_stops_and_names_it(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "torchao", None)
    checkpoint = SimpleNamespace(device=torch.device("cuda", 0), model=torch.nn.Module())
    with pytest.raises(ModelLoadError, match=rf"QUANTIZATION={kind} on a GPU needs torchao: pip install 'forklift-"):
        quantize(checkpoint, kind, 1)


def test_an_older_torchao_without_the_form_is_named(monkeypatch):
    stand_in(monkeypatch)
    del sys.modules["torchao.quantization"].Float8WeightOnlyConfig
    with pytest.raises(ModelLoadError, match="this torchao has no Float8WeightOnlyConfig"):
        quantize_by_torchao(SimpleNamespace(model=torch.nn.Module()), "fp8")


def test_fp8_on_a_cpu_is_refused_and_needs_16_bits(model_folder):
    with pytest.raises(ModelLoadError, match="QUANTIZATION=fp8 works on GPUs only; on a CPU: int8, int4"):
        prepared(model_folder("llama"), FORKLIFT_QUANTIZATION="fp8")
    with pytest.raises(SettingsError, match="fp8 computes in bfloat16"):
        load_settings({"FORKLIFT_QUANTIZATION": "fp8", "FORKLIFT_DTYPE": "float32"})
    assert choose_dtype(load_settings({"FORKLIFT_QUANTIZATION": "fp8"})) == torch.bfloat16


def test_what_torchao_makes_is_checked_and_serves(model_folder, monkeypatch):
    given = stand_in(monkeypatch)
    ready = prepared(model_folder("llama"), FORKLIFT_QUANTIZATION="int8", FORKLIFT_DECODE_RUNNER="paged")
    assert given == [Config(set_inductor_config=False)]
    assert (ready.dropped, ready.settings.quantization) == ((), "int8")


@pytest.mark.slow
def test_what_torchao_makes_wrong_is_named_and_the_model_serves_without(model_folder, monkeypatch):
    stand_in(monkeypatch, factor=1.7)
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"), FORKLIFT_QUANTIZATION="int8")
    assert (ready.dropped, ready.settings.quantization) == (("quantized",), "none")
    [line] = [line for line in lines if line["event"] == "step_failed_check"]
    assert line["step"] == "quantized" and "of the plain model's results" in line["reason"]
    model, log = load(model_folder("llama")), TokenLog(monkeypatch)
    run(ready.engine, job := greedy_job([5, 6, 7, 8], 12))
    assert log.of(job) == greedy_reference(model, job.prompt_ids, 12, eos_token_id=None)


def test_a_layer_with_an_output_that_has_no_weights_is_no_fp8_one():
    layer = torch.nn.Linear(4, 3)
    assert can_become(layer, "fp8") and not can_become(torch.nn.LayerNorm(4), "fp8")
    layer.weight.data[1] = 0
    assert can_become(layer, "int8") and not can_become(layer, "fp8")


@needs_torchao
@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_torchaos_own_weights_are_within_their_bound_and_take_half(model_folder, kind, family):
    model = load(model_folder(family), FORKLIFT_DTYPE="bfloat16")
    checkpoint, tokens = model.checkpoint, probe_tokens(model, 32)
    expected, before = plain_results(checkpoint, tokens), model_bytes(checkpoint.model)
    # For what a GPU has.
    checkpoint.device = torch.device("cuda")
    quantize(checkpoint, kind, 1)
    checkpoint.device = torch.device("cpu")
    found = plain_results(checkpoint, tokens)
    assert departure(found, expected, torch.bfloat16, BOUNDS[kind]) is None
    assert divergence(found, expected) > 0
    assert model_bytes(checkpoint.model) < before


@needs_torchao
@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("runner", ["eager", "paged", "graphs"])
def test_torchaos_own_weights_serve_recorded_and_not(model_folder, monkeypatch, kind, runner):
    monkeypatch.setattr(features, "quantize", lambda checkpoint, kind, _num: quantize_by_torchao(checkpoint, kind))
    environ = {"FORKLIFT_QUANTIZATION": kind, "FORKLIFT_DECODE_RUNNER": runner, "FORKLIFT_MAX_BATCH_SIZE": "3"}
    ready = prepared(model_folder("llama"), **environ)
    assert (ready.dropped, ready.settings.quantization, ready.engine_name) == ((), kind, "mixed")
    if runner != "eager":
        assert ready.graphs.failure is None and len(ready.graphs) > 0
