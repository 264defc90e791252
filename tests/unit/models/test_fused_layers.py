"""Fused layers compute what the family's own layers do; a layer that differs from Llama's is left alone."""

from __future__ import annotations

import pytest
import torch
from transformers import GraniteConfig, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from app.core.settings import load_settings
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.weights.fused_layers import FusedLayer, fuse_layers, merged
from tests.tiny_models import save_tiny_model

PROMPT = list(range(9, 49))


def load(folder) -> Checkpoint:
    return load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder)}), lambda _: None)


def of_config(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Checkpoint:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval().requires_grad_(False)
    return Checkpoint("generate", model, None, torch.device("cpu"), dtype, config.vocab_size)


def shape(**changes: object) -> dict[str, object]:
    usual = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**usual, "vocab_size": 384, "num_key_value_heads": 2, "head_dim": 16, **changes}


@torch.inference_mode()
def logits_of(checkpoint: Checkpoint, prompts: list[list[int]]) -> torch.Tensor:
    return checkpoint.model(input_ids=torch.tensor(prompts), use_cache=False).logits


def greedy(checkpoint: Checkpoint) -> list[int]:
    options = {"do_sample": False, "max_new_tokens": 20, "min_new_tokens": 20}
    return checkpoint.model.generate(torch.tensor([PROMPT]), **options)[0].tolist()


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral"])
def test_families_of_llamas_kind_give_the_same_logits_and_tokens(tmp_path, family):
    checkpoint = load(save_tiny_model(family, tmp_path / family))
    prompts = [PROMPT[:20], PROMPT[20:]]
    expected, tokens = logits_of(checkpoint, prompts), greedy(checkpoint)
    assert fuse_layers(checkpoint) == 2
    assert all(isinstance(layer, FusedLayer) for layer in checkpoint.model.base_model.layers)
    torch.testing.assert_close(logits_of(checkpoint, prompts), expected, rtol=1e-4, atol=1e-5)
    assert greedy(checkpoint) == tokens


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (MistralConfig(**shape(), sliding_window=24), [24, 24]),
        (MistralConfig(**shape(), sliding_window=None), [None, None]),
        (Qwen2Config(**shape(), use_sliding_window=True, sliding_window=24, max_window_layers=1), [None, 24]),
        (LlamaConfig(**shape()), [None, None]),
    ],
    ids=["mistral", "mistral without", "qwen2 in its second layer", "llama"],
)
def test_a_fused_layer_tells_the_window_that_its_familys_tells(monkeypatch, config, windows):
    checkpoint, told = of_config(config), []
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert fuse_layers(checkpoint) == 2
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS._global_mapping,
        "sdpa",
        lambda module, *states, **options: told.append(options["sliding_window"]) or sdpa(module, *states, **options),
    )
    logits_of(checkpoint, [PROMPT])
    assert told == windows


@pytest.mark.parametrize("family", ["codegen", "gpt2", "xglm", "glm", "gpt_bigcode"])
def test_other_families_keep_their_layers(tmp_path, family):
    checkpoint = load(save_tiny_model(family, tmp_path / family))
    expected = logits_of(checkpoint, [PROMPT])
    assert fuse_layers(checkpoint) == 0
    assert torch.equal(logits_of(checkpoint, [PROMPT]), expected)


def test_layers_that_have_llamas_parts_and_compute_something_else_are_left_alone():
    scaled = of_config(GraniteConfig(**shape(), residual_multiplier=0.5))
    expected = logits_of(scaled, [PROMPT])
    assert fuse_layers(scaled) == 0
    assert torch.equal(logits_of(scaled, [PROMPT]), expected)
    assert fuse_layers(of_config(GraniteConfig(**shape(), residual_multiplier=1.0, attention_multiplier=0.25))) == 2


def test_layers_with_further_parts_are_left_alone():
    assert fuse_layers(of_config(Qwen3Config(**shape()))) == 0


def test_a_models_own_attention_stays_with_it(tmp_path):
    checkpoint = load(save_tiny_model("llama", tmp_path / "m"))
    checkpoint.model.set_attn_implementation("eager")
    assert fuse_layers(checkpoint) == 0


def test_bfloat16_layers_are_compared_in_float32_and_stay_bfloat16(tmp_path):
    checkpoint = load(save_tiny_model("qwen2", tmp_path / "m", dtype=torch.bfloat16))
    expected = logits_of(checkpoint, [PROMPT]).float()
    assert fuse_layers(checkpoint) == 2
    found = logits_of(checkpoint, [PROMPT])
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * (expected.max() - expected.min())


def test_merged_layers_keep_each_ones_bias():
    first, second = torch.nn.Linear(8, 3, bias=False), torch.nn.Linear(8, 5)
    inputs = torch.randn(2, 8)
    torch.testing.assert_close(merged((first, second))(inputs), torch.cat([first(inputs), second(inputs)], dim=1))
    assert merged((first, first)).bias is None
