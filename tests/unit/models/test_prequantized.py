"""Quantised checkpoints are what their tensors mean, in each published layout, and keep their codes where they can."""

from __future__ import annotations

import pytest
import torch

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.engine.loading.build import prepare
from app.models.checkpoint.loader import load_checkpoint
from app.models.checkpoint.prequantized.coded_folder import quantization_of, read_coded
from app.models.checkpoint.prequantized.served_form import served_settings
from app.models.forecast import inspect, resident_weight_bytes
from app.models.weights.int4_linear import Int4Linear
from app.models.weights.int8_linear import Int8Linear
from app.models.weights.quantization import model_bytes
from tests.quantized_layouts import LAYOUTS
from tests.tiny_quantized import reference_model, save_experts, save_quantized

IDS = torch.tensor([[(i * 31) % 300 + 20 for i in range(40)]])
FOUR_BITS = {name for name, layout in LAYOUTS.items() if layout.config.get("bits") == 4} | {
    "packed integers",
    "packed integers, asymmetric, in order",
}
KEPT_BYTES = {"packed bytes of an output", "bytes", "bytes of one scale", "int8 of bitsandbytes"}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A folder of a layout and what it means; each is written once."""
    base = tmp_path_factory.mktemp("quantized")
    made = {}

    def folder(name: str):
        if name not in made:
            path = base / str(len(made))
            made[name] = path, save_quantized(path, LAYOUTS[name], num_files=1 + len(made) % 2)
        return made[name]

    return folder


def settings_of(path, **more: str):
    return load_settings({"FORKLIFT_MODEL": str(path), **{f"FORKLIFT_{key}": value for key, value in more.items()}})


@torch.inference_mode()
def logits_of(model) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits[0].float()


def read(path):
    quantization = quantization_of(path)
    assert quantization is not None
    return read_coded(path, quantization)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_weight_is_what_its_tensors_mean(folder_of, name):
    path, meant = folder_of(name)
    coded = read(path)
    assert set(coded.weights) | set(coded.plain) == set(meant)
    assert len(coded.weights) == 14 + LAYOUTS[name].with_head
    for key, weight in coded.weights.items():
        torch.testing.assert_close(weight.weight(torch.float32), meant[key], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(weight.weight(torch.bfloat16), meant[key].bfloat16(), rtol=1e-2, atol=1e-8)
    for key, stored in coded.plain.items():
        torch.testing.assert_close(stored.read().float(), meant[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_codes_are_kept_where_there_are_kernels_for_them(folder_of, name):
    path, meant = folder_of(name)
    grids = {key: weight.grid() for key, weight in read(path).weights.items()}
    assert {grid is not None for grid in grids.values()} == {name in FOUR_BITS | KEPT_BYTES}
    for key, grid in grids.items():
        if grid is not None:
            found = grid.read()
            weight = found.weight() if grid.bits == 4 else found.codes.float() * found.scales[:, None]
            torch.testing.assert_close(weight, meant[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_form_follows_the_folder_unless_the_operator_says_otherwise(folder_of, name):
    path, _ = folder_of(name)
    assert served_settings(settings_of(path)).quantization == ("file" if name in FOUR_BITS else "int8")
    assert served_settings(settings_of(path, DTYPE="float32")).quantization == "none"
    assert served_settings(settings_of(path, QUANTIZATION="int4")).quantization == "int4"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if i % 6 == 0 else pytest.mark.slow) for i, name in enumerate(LAYOUTS)]
)
def test_in_float32_the_logits_are_those_of_the_decoded_weights(folder_of, name):
    path, meant = folder_of(name)
    checkpoint = load_checkpoint(settings_of(path, DTYPE="float32"), lambda _: None)
    assert (checkpoint.dtype, checkpoint.format) == (torch.float32, LAYOUTS[name].config["quant_method"])
    assert checkpoint.model.generation_config.top_k == 7
    expected = logits_of(reference_model(meant))
    torch.testing.assert_close(logits_of(checkpoint.model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_serves_is_near_the_folder_and_as_large_as_foretold(folder_of, name):
    path, meant = folder_of(name)
    settings = settings_of(path)
    foretold = inspect(next(iter(settings.plans))).footprint
    prepared = prepare(settings, lambda _: None)
    assert (prepared.dropped, prepared.settings.quantization) == ((), "file" if name in FOUR_BITS else "int8")
    checkpoint = prepared.model.checkpoint
    found, exact = logits_of(checkpoint.model), logits_of(reference_model(meant))
    error = (found - exact).norm() / (exact - exact.mean(-1, keepdim=True)).norm()
    # Codes that were kept differ by what bfloat16 rounds, or by nothing.
    assert error < (0.03 if name in FOUR_BITS else 0.01 if name in KEPT_BYTES else 0.05)
    kept = sum(isinstance(layer, Int4Linear) for layer in checkpoint.model.modules())
    others = sum(isinstance(layer, Int8Linear) for layer in checkpoint.model.modules())
    assert kept + others == 9
    assert kept == (name in FOUR_BITS) * (8 + LAYOUTS[name].with_head)
    assert model_bytes(checkpoint.model) == pytest.approx(foretold.weight_bytes, rel=0.05)
    assert resident_weight_bytes(next(iter(settings.plans))) >= foretold.weight_bytes


@pytest.mark.slow
def test_gpt_oss_experts_are_decoded_exactly(tmp_path):
    meant = save_experts(tmp_path)
    coded = read(tmp_path)
    for key, weight in coded.weights.items():
        assert torch.equal(weight.weight(torch.bfloat16).float(), meant[key])
    settings = settings_of(tmp_path)
    assert served_settings(settings).quantization == "none"
    checkpoint = load_checkpoint(settings, lambda _: None)
    assert checkpoint.dtype == torch.bfloat16
    for name, weight in checkpoint.model.named_parameters():
        assert torch.equal(weight.detach().float(), meant[name])


@pytest.mark.slow
def test_layers_whose_weights_lie_transposed_are_refused(tmp_path):
    save_quantized(tmp_path, LAYOUTS["bytes"], "gpt2")
    with pytest.raises(ModelLoadError, match="compressed-tensors with the transposed layers of GPT2LMHeadModel"):
        load_checkpoint(settings_of(tmp_path), lambda _: None)
