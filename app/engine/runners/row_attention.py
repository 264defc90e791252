"""Attention of rows that decode one token each: on the CPU the way in which torch's kernel is fastest there. Any with
sinks or caps, which torch's kernel does not know. And what puts one of ours in the place of the model's.

torch's kernel reads keys and values once for each query head, and multiplies lone queries slowly in 16 bits where the
processor has no matrix instructions for them: one row of 150 entries takes 175 us in bfloat16, grouped 38 (9 heads on
3, docs/performance.md). Inference thread only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from app.models.checkpoint.layer_kinds import LayerKind
from app.models.weights.wide_linear import has_kernels_for

ROW_ATTENTION = "forklift_rows"


def row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Of ``query`` ``(rows, heads, 1, head_dim)`` to all of ``(rows, kv_heads, length, ..)`` that the mask leaves.

    Returns ``(rows, 1, heads, ..)``. The mask is one for all heads. What the model adds by position goes transformers'
    way, and so does all on a GPU.
    """
    if query.device.type != "cpu" or options.get("position_bias") is not None:
        options.pop("is_causal", None)
        found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, is_causal=False, **options)
        return found, None
    (num_rows, num_heads, _, head_dim), dtype = query.shape, query.dtype
    grouped = query.reshape(num_rows, key.shape[1], -1, head_dim)
    if is_widened(grouped.shape[2], dtype):
        grouped, key, value = grouped.float(), key.float(), value.float()
        attention_mask = None if attention_mask is None else attention_mask.float()
    attended = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=options.get("scaling"))
    return attended.to(dtype).reshape(num_rows, 1, num_heads, -1), None


def is_widened(num_grouped: int, dtype: torch.dtype) -> bool:
    """Whether float32 is faster for so many queries on the same keys, the copy of keys and values included."""
    return (num_grouped == 1 or dtype == torch.float16) and not has_kernels_for(dtype)


def capped_attention(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of ``(rows, heads, num_new, head_dim)`` queries, with a sink for each head (a logit that no value has)
    or logits held below ``softcap``; ``(rows, num_new, heads, head_dim)``. Without ``mask`` each query sees what lies
    before it.
    """
    if position_bias is not None:
        raise ValueError("no attention is known that adds both a bias by position and sinks or caps")
    num_rows, num_heads, num_new, head_dim = query.shape
    # Queries that share keys lie one behind the other: else torch copies keys and values for each of them.
    scale = head_dim**-0.5 if scaling is None else scaling
    grouped = query.reshape(num_rows, key.shape[1], -1, head_dim).float() * scale
    logits = (grouped @ key.float().transpose(-1, -2)).view(num_rows, key.shape[1], -1, num_new, key.shape[2])
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = logits + mask[:, :, None]
    elif num_new > 1:
        hidden = torch.ones((num_new, key.shape[2]), dtype=torch.bool, device=query.device).triu(1)
        logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
    if s_aux is not None:
        sinks = s_aux.float().reshape(1, key.shape[1], -1, 1, 1).expand(*logits.shape[:-1], 1)
        logits = torch.cat((logits, sinks), dim=-1)
    weights = logits.softmax(-1)[..., : key.shape[2]].flatten(2, 3)
    attended = (weights @ value.float()).to(query.dtype)
    return attended.reshape(num_rows, num_heads, num_new, -1).transpose(1, 2), None


def told_window(module: Any, kind: LayerKind, told: int | None) -> int | None:
    """How far a layer says that it sees: to its attention, or by masks made for all of them (Phi-3.5-MoE)."""
    if told is None and hasattr(sys.modules[type(module).__module__], "create_sliding_window_causal_mask"):
        return kind.reach
    return told


def refuse_other_windows(kind: LayerKind, told: int | None, max_tokens: int) -> None:
    """A layer that says how far it sees must say what the config says; and it must, where it sees the last ones.

    Who does not (Moshi) sees all of a prompt in transformers, and then what its cache has kept.
    """
    if told is None and kind.reach is not None and not kind.by_chunk:
        raise ValueError("a layer does not say how far it sees")
    if told is not None and told < max_tokens and told != kind.reach:
        raise ValueError(f"a layer sees {told} entries where the config says {kind.reach}")


@contextmanager
def attending_by(model: Any, name: str) -> Iterator[None]:
    """Ours of that name in the place of the model's, which everything else (``generate``) goes on to use."""
    config = model.config.get_text_config()
    usual, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = usual
