"""Tiny configs of any model type: one table of sizes for the names that configs use, and what single types need beyond.

Sizes are applied to the names that a type's config has by default, and to its text part where it has one.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCAB_SIZE = 384
WINDOW = 32
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "unpadded_vocab_size": VOCAB_SIZE,
    "num_expert_group": 1,
    "hidden_size_per_layer_input": 16,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "model_dim", "embedding_size", "dim"), 64),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "intermediate_size_mlp"), 128
    ),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "block_ff_dim", "dff", "dim_ff", "block_ffn_dim"), 128),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "num_decoder_layers"), 4
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads", "decoder_attention_heads"), 4
    ),
    **dict.fromkeys(("encoder_layers", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "num_global_key_value_heads"), 2),
    **dict.fromkeys(
        ("head_dim", "attention_head_dim", "global_head_dim", "kv_channels", "v_head_dim", "qk_head_dim"), 16
    ),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), 1024),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "attention_window_size"), WINDOW),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(
        ("moe_intermediate_size", "expert_hidden_dim", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32
    ),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "n_group", "topk_group", "moe_num_shared_experts"), 1),
    **dict.fromkeys(
        ("kv_lora_rank", "q_lora_rank", "index_head_dim", "ssm_state_size", "mamba_d_state", "state_size"), 16
    ),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_head_dim", "mamba_d_head"), 16),
    **dict.fromkeys(("mamba_num_heads", "mamba_n_heads"), 8),
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "n_groups": 1,
    "first_k_dense_replace": 1,
    "num_kv_shared_layers": 2,
    "num_nextn_predict_layers": 0,
    "rotary_dim": 8,
    "num_memory_blocks": 1,
    "laurel_rank": 8,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
    "tie_word_embeddings": True,
}
STATES = ["linear_attention", "full_attention"] * 2
WINDOWS = ["sliding_attention", "full_attention"] * 2
# What single types need: sizes that belong together, patterns that fit few layers.
OVERRIDES: dict[str, dict[str, Any]] = {
    "gemma3n_text": {"intermediate_size": [128] * 4, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4},
    "gemma3n": {"intermediate_size": [128] * 4, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4},
    "llama4_text": {"no_rope_layers": [1, 1, 1, 0]},
    "llama4": {"no_rope_layers": [1, 1, 1, 0]},
    "mamba2": {"num_heads": 8, "head_dim": 16, "hidden_size": 64, "expand": 2, "n_groups": 1},
    "gemma2": {"attn_logit_softcapping": 5.0},
    "zamba": {"attention_hidden_size": 128, "attention_head_dim": 32, "mamba_dt_rank": 4, "n_mamba_heads": 2},
    "bloom": {"hidden_size": 64, "n_head": 4},
    "falcon": {"num_kv_heads": 4},
    "xlnet": {"d_head": 16, "d_inner": 128},
    "reformer": {"is_decoder": True},
    **{name: {"layer_types": STATES} for name in ("kimi_linear", "bailing_hybrid", "granitemoehybrid", "minimax")},
    **{name: {"layer_types": WINDOWS} for name in ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
        "mamba_ngroups": 1,
        "num_mem_blocks": 1,
        "attention_head_dim": 32,
        "attention_hidden_size": 128,
        "adapter_rank": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
    "dbrx": {"tie_word_embeddings": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "xmod": {"default_language": "en_XX"},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
}


def default_fields(kind: type[PretrainedConfig]) -> set[str]:
    """The names that a config of this kind has without being told."""
    return set(kind().to_dict())


def sized(kind: type[PretrainedConfig], model_type: str) -> dict[str, Any]:
    """The sizes that a config of ``kind`` takes."""
    fields = default_fields(kind)
    values = {name: size for name, size in SIZES.items() if name in fields}
    if "kv_lora_rank" in fields:
        # Latents are expanded for every head, and what is rotated is all that a head's size means.
        values |= {"num_key_value_heads": 4, "head_dim": 8}
    return {**values, **OVERRIDES.get(model_type, {})}


def tiny_config(model_type: str) -> PretrainedConfig:
    """A config of ``model_type`` with a few small layers. Raises whatever its class raises."""
    kind = CONFIG_MAPPING[model_type]
    text = getattr(kind, "sub_configs", {}).get("text_config")
    if text is not None and hasattr(text, "to_dict"):
        return kind(text_config=sized(text, model_type))
    config = kind(**sized(kind, model_type))
    if hasattr(config, "is_decoder"):
        config.is_decoder = True
    return config
