"""Weights in layouts of their own give the same results, and only where the settings and the device ask for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from app.core.settings import load_settings
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.weights import packing
from app.models.weights.packing import (
    MANY_ROWS,
    PackedLinear,
    has_kernels,
    owns_weights,
    pack,
    pack_in_pieces,
    unpack_in_pieces,
    wants_packing,
)
from app.models.weights.quantization import model_bytes
from tests.tiny_models import save_tiny_model

needs_kernels = pytest.mark.skipif(not has_kernels(), reason="oneDNN has no bfloat16 kernels for this processor")
needs_float_kernels = pytest.mark.skipif(not has_kernels(torch.float32), reason="measured on x86-64 only")


def load(folder, **environ: str) -> Checkpoint:
    settings = {f"FORKLIFT_{name.upper()}": value for name, value in environ.items()}
    return load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder), **settings}), lambda _: None)


@torch.inference_mode()
def logits_of(checkpoint: Checkpoint, length: int) -> torch.Tensor:
    ids = torch.arange(9, 9 + length)[None]
    return checkpoint.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits


@needs_kernels
@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt_bigcode", "glm"])
def test_packed_weights_give_the_same_logits_bit_for_bit(tmp_path, family):
    checkpoint = load(save_tiny_model(family, tmp_path / family, dtype=torch.bfloat16))
    plain, num_bytes = [logits_of(checkpoint, length) for length in (1, 5, 40)], model_bytes(checkpoint.model)
    pack(checkpoint, num_rows=1)
    assert not any(type(module) is torch.nn.Linear for module in checkpoint.model.modules())
    assert isinstance(checkpoint.model.get_output_embeddings(), PackedLinear)
    for length, expected in zip((1, 5, 40), plain, strict=True):
        assert torch.equal(logits_of(checkpoint, length), expected)
    # An input embedding that shared the output layer's weight has it for itself now.
    assert (
        num_bytes <= model_bytes(checkpoint.model) <= num_bytes + checkpoint.model.get_input_embeddings().weight.nbytes
    )


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt_bigcode", "glm"])
def test_transposed_weights_give_the_same_logits(tmp_path, family):
    checkpoint = load(save_tiny_model(family, tmp_path / family))
    plain = [logits_of(checkpoint, length) for length in (1, 5, 40)]
    pack(checkpoint, num_rows=1)
    layers = [module for module in checkpoint.model.modules() if type(module) is torch.nn.Linear]
    assert len(layers) > 2
    assert all(layer.weight.t().is_contiguous() for layer in layers)
    assert checkpoint.model.get_input_embeddings().weight.is_contiguous()
    for length, expected in zip((1, 5, 40), plain, strict=True):
        torch.testing.assert_close(logits_of(checkpoint, length), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def of_any_size(monkeypatch):
    """Every layer counts as large."""
    monkeypatch.setattr(packing, "LEAST_BYTES", 0)


@needs_float_kernels
@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt_bigcode", "glm"])
def test_many_rows_are_multiplied_by_large_weights_in_the_kernels_layout(tmp_path, family, of_any_size):
    checkpoint = load(save_tiny_model(family, tmp_path / family))
    plain, num_bytes = [logits_of(checkpoint, length) for length in (1, 5, 40)], model_bytes(checkpoint.model)
    pack(checkpoint, num_rows=MANY_ROWS)
    assert not any(type(module) is torch.nn.Linear for module in checkpoint.model.modules())
    for length, expected in zip((1, 5, 40), plain, strict=True):
        torch.testing.assert_close(logits_of(checkpoint, length), expected, rtol=1e-4, atol=1e-5)
    assert (
        num_bytes <= model_bytes(checkpoint.model) <= num_bytes + checkpoint.model.get_input_embeddings().weight.nbytes
    )


@needs_float_kernels
@pytest.mark.parametrize("num_rows", [1, MANY_ROWS])
def test_small_weights_and_those_for_few_rows_lie_transposed(tmp_path, num_rows):
    checkpoint = load(save_tiny_model("qwen2", tmp_path / "m"))
    head = torch.nn.Linear(1024, 512, bias=False)
    assert isinstance(packing.laid_out(head), PackedLinear)
    pack(checkpoint, num_rows=num_rows)
    assert not any(isinstance(module, PackedLinear) for module in checkpoint.model.modules())


@needs_float_kernels
@torch.inference_mode()
def test_a_family_that_looks_at_a_weight_gets_it_and_the_layer_goes_on_with_it():
    layer, inputs = torch.nn.Linear(7, 5), torch.randn(3, 7)
    weight, expected = layer.weight.detach().clone(), layer(inputs)
    packed = PackedLinear(layer)
    num_bytes = model_bytes(packed)
    assert torch.equal(packed.weight, weight) and packed.weight is packed.weight
    assert packed.packed is None and model_bytes(packed) == num_bytes
    torch.testing.assert_close(packed(inputs), expected)
    assert torch.equal(packed.dense, weight)


@needs_float_kernels
@pytest.mark.parametrize("looks", [False, True])
def test_what_was_unpacked_is_packed_again_as_it_was(tmp_path, looks, of_any_size):
    checkpoint = load(save_tiny_model("llama", tmp_path / "m"))
    weights = {name: one.weight.clone() for name, one in checkpoint.model.named_modules() if is_linear(one)}
    pack(checkpoint, num_rows=MANY_ROWS)
    kinds = kinds_of(checkpoint)
    if looks:
        assert checkpoint.model.get_output_embeddings().weight.dtype == torch.float32
    places = unpack_in_pieces(checkpoint, lambda: None)
    found = {name: one.weight for name, one in checkpoint.model.named_modules() if is_linear(one)}
    assert found.keys() == weights.keys() and len(places) == len(weights)
    assert all(torch.equal(found[name], weight) and found[name].is_contiguous() for name, weight in weights.items())
    pack_in_pieces(places, lambda: None)
    assert kinds_of(checkpoint) == kinds


def is_linear(module: torch.nn.Module) -> bool:
    return type(module) is torch.nn.Linear


def kinds_of(checkpoint: Checkpoint) -> dict[str, type]:
    return {name: type(one) for name, one in checkpoint.model.named_modules()}


@needs_kernels
def test_the_output_layer_keeps_its_hooks(tmp_path):
    checkpoint = load(save_tiny_model("qwen2", tmp_path / "m", dtype=torch.bfloat16))
    before = len(checkpoint.model.get_output_embeddings()._forward_pre_hooks)
    pack(checkpoint, num_rows=1)
    assert len(checkpoint.model.get_output_embeddings()._forward_pre_hooks) == before == 1


@pytest.mark.parametrize(
    ("dtype", "environ", "expected"),
    [
        ("bfloat16", {}, True),
        ("bfloat16", {"workers": "1"}, True),
        ("bfloat16", {"workers": "2"}, False),
        ("bfloat16", {"workers": "2", "pack_weights": "always"}, True),
        ("bfloat16", {"pack_weights": "never"}, False),
        ("float32", {}, True),
        ("float32", {"workers": "2"}, False),
    ],
)
def test_weights_are_packed_where_that_helps_and_no_other_worker_shares_them(tmp_path, dtype, environ, expected):
    folder = save_tiny_model("qwen2", tmp_path / "m", dtype=getattr(torch, dtype))
    settings = load_settings({f"FORKLIFT_{name.upper()}": value for name, value in environ.items()})
    assert wants_packing(load(folder, **environ), settings) is expected


@pytest.mark.parametrize(
    ("device", "environ", "expected"),
    [
        ("cpu", {}, True),
        ("cpu", {"pack_weights": "never"}, False),
        ("cpu", {"pack_weights": "never", "quantization": "int8"}, True),
        ("meta", {}, False),
        ("meta", {"quantization": "int8"}, False),
    ],
)
def test_only_weights_on_the_cpu_become_a_processs_own(tmp_path, device, environ, expected):
    checkpoint = replace(load(save_tiny_model("qwen2", tmp_path / "m")), device=torch.device(device))
    settings = load_settings({f"FORKLIFT_{name.upper()}": value for name, value in environ.items()})
    assert owns_weights(checkpoint, settings) is expected
