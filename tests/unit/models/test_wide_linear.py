"""Layers of 16 bits that multiply several rows in float32 give what they gave, but for rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.weights import wide_linear
from app.models.weights.quantization import model_bytes
from app.models.weights.wide_linear import LEAST_ROWS, WideLinear, wants_widening, widen
from tests.tiny_models import save_tiny_model


def load(folder, dtype: str):
    return load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder), "FORKLIFT_DTYPE": dtype}), lambda _: None)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(wide_linear, "PART_NUMBERS", 1000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("has_bias", [True, False])
@torch.inference_mode()
def test_many_rows_are_as_near_to_float32_as_rounding_once_allows(small_parts, dtype, has_bias):
    torch.manual_seed(0)
    layer = nn.Linear(48, 100, bias=has_bias).to(dtype)
    inputs = torch.randn(2, 9, 48).to(dtype)
    expected = nn.functional.linear(inputs.float(), layer.weight.float(), layer.bias.float() if has_bias else None)
    found = WideLinear(layer)(inputs)
    assert found.dtype == dtype and found.shape == (2, 9, 100)
    torch.testing.assert_close(found.float(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)


@torch.inference_mode()
def test_few_rows_go_as_before_bit_for_bit(small_parts):
    layer = nn.Linear(48, 100).bfloat16()
    inputs = torch.randn(LEAST_ROWS - 1, 48).bfloat16()
    assert torch.equal(WideLinear(layer)(inputs), layer(inputs))


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2", "glm"])
@torch.inference_mode()
def test_a_widened_model_has_its_logits_and_holds_nothing_twice(tmp_path, small_parts, family):
    checkpoint = load(save_tiny_model(family, tmp_path / "m", dtype=torch.bfloat16), "bfloat16")
    ids = torch.arange(9, 49)[None]
    plain, num_bytes = checkpoint.model(input_ids=ids, use_cache=False).logits.float(), model_bytes(checkpoint.model)
    widen(checkpoint)
    assert isinstance(checkpoint.model.get_output_embeddings(), WideLinear)
    assert model_bytes(checkpoint.model) == num_bytes
    found = checkpoint.model(input_ids=ids, use_cache=False).logits.float()
    assert (found - plain).abs().max() <= 0.02 * (plain.max() - plain.min())


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", True), ("float16", True), ("float32", False)])
def test_only_dtypes_without_kernels_of_their_own_are_widened(tmp_path, monkeypatch, dtype, expected):
    monkeypatch.setattr(wide_linear.platform, "machine", lambda: "x86_64")
    for name in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda: False)
    wide_linear.has_kernels_for.cache_clear()
    try:
        assert wants_widening(load(save_tiny_model("qwen2", tmp_path / "m"), dtype)) is expected
    finally:
        wide_linear.has_kernels_for.cache_clear()
