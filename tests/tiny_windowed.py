"""Configs of tiny models whose layers see the last entries or pieces only, have sinks, caps, or others' entries."""

from __future__ import annotations

from collections.abc import Callable

from transformers import AutoConfig, PreTrainedConfig

VOCAB_SIZE = 384
WINDOW = 32
LONG = 16_384
SMALL: dict[str, object] = {
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "sliding_window": WINDOW,
}
MIXED = ["sliding_attention", "full_attention"] * 2
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
NO_PER_LAYER = {"vocab_size_per_layer_input": VOCAB_SIZE, "hidden_size_per_layer_input": 16}


def _of(model_type: str, **changes: object) -> Callable[[], PreTrainedConfig]:
    return lambda: AutoConfig.for_model(model_type, **{**SMALL, **changes})


WINDOWED: dict[str, Callable[[], PreTrainedConfig]] = {
    "mistral": _of("mistral", num_hidden_layers=2),
    "starcoder2": _of("starcoder2"),
    "qwen2_sliding": _of("qwen2", use_sliding_window=True, layer_types=MIXED),
    "gemma2": _of("gemma2", query_pre_attn_scalar=16, attn_logit_softcapping=5.0),
    "gemma3": _of("gemma3_text", layer_types=MIXED, query_pre_attn_scalar=16),
    "gemma3_long": _of(
        "gemma3_text",
        num_hidden_layers=6,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
        sliding_window=512,
        max_position_embeddings=LONG,
        query_pre_attn_scalar=16,
    ),
    "gemma3n": _of(
        "gemma3n_text",
        num_kv_shared_layers=2,
        layer_types=MIXED,
        laurel_rank=8,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * 4,
        intermediate_size=[128] * 4,
        **NO_PER_LAYER,
    ),
    "gemma4": _of(
        "gemma4_text",
        layer_types=MIXED,
        num_kv_shared_layers=2,
        global_head_dim=16,
        num_global_key_value_heads=2,
        **NO_PER_LAYER,
    ),
    "gpt_oss": _of("gpt_oss", layer_types=MIXED, **EXPERTS),
    "llama4": _of(
        "llama4_text",
        attention_chunk_size=WINDOW,
        intermediate_size_mlp=128,
        num_hidden_layers=4,
        no_rope_layers=[1, 1, 1, 0],
        **EXPERTS,
    ),
    "olmo3": _of("olmo3", layer_types=MIXED),
    "cohere2": _of("cohere2", layer_types=MIXED),
    "exaone4": _of("exaone4", layer_types=MIXED, sliding_window_pattern=2),
    "phi3": _of("phi3"),
    "smollm3": _of("smollm3", use_sliding_window=True, layer_types=MIXED),
}
