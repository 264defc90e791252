"""Fused layers compute what the family's own layers do; a layer that differs from Llama's is left alone."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from app.core.settings import load_settings
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.weights.fused.fused_layers import FusedLayer, fuse_layers, merged
from app.models.weights.fused.rotations import Order
from tests.thinned import few_of
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


@pytest.mark.parametrize("family", ["codegen", "gpt2", "xglm", "gpt_bigcode"])
def test_other_families_keep_their_layers(tmp_path, family):
    checkpoint = load(save_tiny_model(family, tmp_path / family))
    expected = logits_of(checkpoint, [PROMPT])
    assert fuse_layers(checkpoint) == 0
    assert torch.equal(logits_of(checkpoint, [PROMPT]), expected)


# What a family has beside Llama's parts, and of its layers in their order what was found.
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SLIDING, FULL = "sliding_attention", "full_attention"
WINDOWS = {"layer_types": [SLIDING, FULL], "sliding_window": 8}
OTHERS: dict[str, tuple[dict[str, object], dict[str, list[object]]]] = {
    "gemma2": ({**WINDOWS, "query_pre_attn_scalar": 16}, {"window": [8, None], "softcap": [50.0, 50.0]}),
    "gemma3_text": ({**WINDOWS, "query_pre_attn_scalar": 16}, {"window": [8, None], "has_head_norms": [True, True]}),
    "qwen3": ({}, {"has_head_norms": [True, True], "has_whole_norms": [False, False]}),
    "qwen3_moe": (EXPERTS, {"has_gate": [False, False], "has_head_norms": [True, True]}),
    "smollm3": ({"no_rope_layer_interval": 2}, {"order": [Order.HALVES, Order.NONE]}),
    "olmo2": ({}, {"has_whole_norms": [True, True]}),
    "olmo3": (WINDOWS, {"has_whole_norms": [True, True], "window": [8, None]}),
    "cohere2": (WINDOWS, {"is_parallel": [True, True], "order": [Order.PAIRS, Order.NONE]}),
    "exaone4": (WINDOWS, {"order": [Order.HALVES, Order.NONE], "window": [8, None]}),
    "glm": ({}, {"order": [Order.PAIRS_OF_HALVES] * 2}),
    "glm4": ({}, {"order": [Order.PAIRS_OF_HALVES] * 2}),
    "glm4_moe": ({**EXPERTS, "first_k_dense_replace": 1}, {"has_gate": [True, False]}),
    "gpt_oss": ({**EXPERTS, **WINDOWS}, {"has_sinks": [True, True], "order": [Order.HALVES_ONCE] * 2}),
    "granite": ({"residual_multiplier": 0.5, "attention_multiplier": 0.25}, {"scale": [0.5, 0.5]}),
}


def of_family(family: str, dtype: torch.dtype = torch.float32, **changes: object) -> Checkpoint:
    """Norms, sinks and biases are random, too."""
    checkpoint = of_config(AutoConfig.for_model(family, **{**shape(pad_token_id=0), **changes}), dtype)
    for weight in checkpoint.model.parameters():
        if weight.ndim == 1:
            weight.add_(0.2 * torch.randn_like(weight))
    return checkpoint


@pytest.mark.parametrize("family", few_of(OTHERS, 5))
def test_families_with_more_than_llamas_parts_give_the_same_logits_and_tokens(family):
    changes, found = OTHERS[family]
    checkpoint = of_family(family, **changes)
    prompts = [PROMPT[:20], PROMPT[20:]]
    expected, tokens = logits_of(checkpoint, prompts), greedy(checkpoint)
    assert fuse_layers(checkpoint) == 2
    patterns = [layer.pattern for layer in checkpoint.model.base_model.layers]
    for name, values in found.items():
        assert [getattr(pattern, name) for pattern in patterns] == values
    torch.testing.assert_close(logits_of(checkpoint, prompts), expected, rtol=1e-4, atol=1e-5)
    assert greedy(checkpoint) == tokens


@pytest.mark.parametrize("family", ["gemma3_text", "olmo2"])
def test_norms_of_bfloat16_are_as_exact_as_the_familys(family):
    checkpoint = of_family(family, torch.bfloat16, **OTHERS[family][0])
    expected = logits_of(checkpoint, [PROMPT]).float()
    assert fuse_layers(checkpoint) == 2
    found = logits_of(checkpoint, [PROMPT]).float()
    assert (found - expected).abs().max() < 0.05 * (expected.max() - expected.min())


def test_layers_that_scale_their_queries_far_out_are_left_alone():
    """Ministral 3 has Llama's parts, and computes what Llama does at the first positions alone."""
    turning = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 32}
    checkpoint = of_family("ministral3", rope_parameters={**turning, "llama_4_scaling_beta": 0.1})
    assert fuse_layers(checkpoint) == 0


def test_layers_that_have_llamas_parts_and_compute_something_else_are_left_alone():
    checkpoint = of_config(LlamaConfig(**shape()))
    mlp = checkpoint.model.model.layers[0].mlp
    mlp.forward = lambda states: mlp.down_proj(mlp.act_fn(mlp.up_proj(states)) * mlp.gate_proj(states))
    expected = logits_of(checkpoint, [PROMPT])
    assert fuse_layers(checkpoint) == 1
    assert not isinstance(checkpoint.model.model.layers[0], FusedLayer)
    torch.testing.assert_close(logits_of(checkpoint, [PROMPT]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("self_attn", lambda one: one.register_parameter("extra", torch.nn.Parameter(torch.ones(3)))),
        ("self_attn", lambda one: one.add_module("v_norm", torch.nn.Identity())),
        ("self_attn", lambda one: setattr(one, "is_causal", False)),
        ("", lambda one: one.register_buffer("layer_scalar", torch.ones(1))),
    ],
)
def test_layers_with_further_parts_are_left_alone(place, change):
    checkpoint = of_config(LlamaConfig(**shape()))
    change(checkpoint.model.model.layers[0].get_submodule(place))
    expected = logits_of(checkpoint, [PROMPT])
    fuse_layers(checkpoint)
    assert not isinstance(checkpoint.model.model.layers[0], FusedLayer)
    torch.testing.assert_close(logits_of(checkpoint, [PROMPT]), expected, rtol=1e-4, atol=1e-5)


def test_a_models_own_attention_stays_with_it(tmp_path):
    checkpoint = load(save_tiny_model("llama", tmp_path / "m"))
    checkpoint.model.set_attn_implementation("eager")
    expected = logits_of(checkpoint, [PROMPT])
    assert fuse_layers(checkpoint) == 2
    assert checkpoint.model.config._attn_implementation == "eager"
    torch.testing.assert_close(logits_of(checkpoint, [PROMPT]), expected, rtol=1e-4, atol=1e-5)


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
