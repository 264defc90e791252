"""Configs of tiny models whose layers keep states: convolutions, recurrences, beside attention or alone."""

from __future__ import annotations

from collections.abc import Callable

from transformers import AutoConfig, PreTrainedConfig

from tests.tiny_windowed import SMALL

LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MIXED = ["linear_attention", "full_attention"] * 2
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_expand": 2}
PLAIN_MAMBA = {"num_hidden_layers": 3, "state_size": 16}


def _of(model_type: str, **changes: object) -> Callable[[], PreTrainedConfig]:
    sizes = {name: size for name, size in SMALL.items() if name != "sliding_window"}
    return lambda: AutoConfig.for_model(model_type, **{**sizes, **changes})


STATEFUL: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen3_next": _of("qwen3_next", layer_types=MIXED, shared_expert_intermediate_size=32, **LINEAR, **EXPERTS),
    "qwen3_5": _of("qwen3_5_text", layer_types=MIXED, **LINEAR),
    "mamba": _of("mamba", **PLAIN_MAMBA),
    "mamba2": _of("mamba2", num_heads=8, n_groups=1, chunk_size=32, **PLAIN_MAMBA),
    "falcon_mamba": _of("falcon_mamba", **PLAIN_MAMBA),
    "lfm2": _of("lfm2", layer_types=["conv", "full_attention"] * 2, block_ff_dim=128, block_multiple_of=32),
    "granite4": _of(
        "granitemoehybrid",
        layer_types=MIXED,
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=64,
        mamba_chunk_size=32,
        **MAMBA,
    ),
    "falcon_h1": _of("falcon_h1", mamba_d_ssm=128, mamba_chunk_size=32, **MAMBA),
    "bamba": _of("bamba", attn_layer_indices=[1, 3], mamba_chunk_size=32, **MAMBA),
    "jamba": _of(
        "jamba",
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=16,
        mamba_dt_rank=8,
        num_experts=4,
        use_mamba_kernels=False,
    ),
    "nemotron_h": _of(
        "nemotron_h",
        layers_block_type=["linear_attention", "mlp", "full_attention", "moe", "linear_attention"],
        ssm_state_size=16,
        mamba_num_heads=8,
        mamba_head_dim=16,
        n_groups=1,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32,
        chunk_size=32,
    ),
    "zamba2": _of(
        "zamba2",
        layers_block_type=["linear_attention", "hybrid"] * 2,
        mamba_d_state=16,
        mamba_ngroups=1,
        n_mamba_heads=8,
        mamba_headdim=16,
        chunk_size=32,
        num_mem_blocks=1,
        attention_head_dim=32,
        attention_hidden_size=128,
        adapter_rank=8,
    ),
}
