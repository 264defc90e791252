"""What an adapter's folder may hold, and what is refused by its name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.core.errors import ModelLoadError, SettingsError
from app.core.settings import load_settings
from app.core.system.adapter_folders import adapters_at_start
from app.models.folder.adapter_folder import read_form, read_parts
from tests.tiny_adapters import save_adapter


@pytest.fixture
def folder(model_folder, tmp_path):
    return save_adapter(tmp_path / "adapter", model_folder("llama"), "llama", seed=1, rank=4, alpha=8)


LARGEST = torch.finfo(torch.bfloat16).max


def change(folder, **values: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def line_of(folder) -> str:
    with pytest.raises(ModelLoadError) as raised:
        read_parts(read_form(folder), LARGEST)
    assert "\n" not in str(raised.value)
    return str(raised.value)


REFUSED = {
    "peft_type is 'IA3'": {"peft_type": "IA3"},
    "sets use_dora": {"use_dora": True},
    "sets trainable_token_indices": {"trainable_token_indices": [1]},
    "sets layer_replication": {"layer_replication": [[0, 1]]},
    "sets alora_invocation_tokens": {"alora_invocation_tokens": [1]},
    "sets use_qalora": {"use_qalora": True},
    "sets something_new": {"something_new": 1},
    "sets lora_bias": {"lora_bias": True},
    "whole layers of its own (modules_to_save)": {"modules_to_save": ["lm_head"]},
    "it changes biases": {"bias": "lora_only"},
    "init_lora_weights 'pissa'": {"init_lora_weights": "pissa"},
    "its config says 16": {"r": 16},
    "with lora_alpha inf": {"lora_alpha": float("inf")},
    "its patterns are no tables": {"rank_pattern": [1]},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_not_served_is_refused_by_name(folder, said):
    change(folder, **REFUSED[said])
    assert said in line_of(folder)


def with_tensors(folder, **tensors: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), **tensors}, path)


def test_weights_of_another_kind_are_refused_by_name(folder):
    with_tensors(folder, **{"base_model.model.lm_head.weight": torch.ones(2, 2)})
    assert "hold base_model.model.lm_head.weight, which is not served" in line_of(folder)


def test_numbers_that_are_none_are_refused(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    assert "hold NaN or infinity" in line_of(folder)


@pytest.mark.parametrize("alpha", [1e308, -1e308, 3.4e38])
def test_numbers_that_the_scale_makes_infinite_are_refused(folder, alpha):
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor * 10 for name, tensor in load_file(path).items()}, path)
    change(folder, lora_alpha=alpha)
    assert "scaled by" in line_of(folder)


def test_numbers_that_a_narrower_type_cannot_hold_are_refused(folder):
    change(folder, lora_alpha=1e9)
    form = read_form(folder)
    assert read_parts(form, LARGEST)
    with pytest.raises(ModelLoadError, match="which the model's type cannot hold"):
        read_parts(form, torch.finfo(torch.float16).max)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_of_every_dtype_are_read(folder, dtype):
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    name = "model.layers.1.mlp.up_proj"
    part = read_parts(read_form(folder), LARGEST)[name]
    down, up = (tensors[f"base_model.model.{name}.lora_{kind}.weight"].float() for kind in "AB")
    torch.testing.assert_close(torch.from_numpy(part.down), down, rtol=0, atol=0)
    torch.testing.assert_close(torch.from_numpy(part.up), up.t() * 2, rtol=0, atol=0)


def test_scales_follow_patterns_and_the_root_of_the_rank(folder):
    change(folder, use_rslora=True, alpha_pattern={"layers.1.mlp.up_proj": 3, "(((": 1}, rank_pattern={"q_proj": 4})
    form = read_form(folder)
    assert form.scales["model.layers.0.mlp.up_proj"] == 8 / 2
    assert form.scales["model.layers.1.mlp.up_proj"] == 3 / 2


def test_a_name_that_is_taken_stops_the_start(folder):
    settings = load_settings({"FORKLIFT_ADAPTERS": str(folder.parent), "FORKLIFT_MODEL_NAME": "adapter"})
    with pytest.raises(SettingsError, match="has the name of the model adapter"):
        list(adapters_at_start(settings))
    missing = load_settings({"FORKLIFT_ADAPTERS": str(folder.parent / "none")})
    with pytest.raises(SettingsError, match=r"FORKLIFT_ADAPTERS: .*none cannot be read"):
        list(adapters_at_start(missing))
