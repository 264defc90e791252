"""How large things are in a cache in blocks: blocks, entries, and what ways to attend are tried on.

Inference thread only.
"""

from __future__ import annotations

from typing import Any

import torch

from app.core.errors import ModelLoadError
from app.engine.kv.blocks.entry_size import EntrySize
from app.engine.kv.blocks.paged_cache import entry_sizes
from app.engine.runners.paged.query_rows import Rule
from app.engine.runners.paged.way_choice import AttentionShape
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.layer_kinds import layer_kinds
from app.models.checkpoint.loader import Checkpoint

# FlexAttention's kernels want blocks that are worth a product; on a CPU smaller ones find more faults.
BLOCK_TOKENS = {"cuda": 64, "cpu": 16}


def sizes_of(checkpoint: Checkpoint, num_layers: int) -> list[EntrySize]:
    """What each layer keeps of a token; before transformers 5.24 its cache had none for those that keep nothing."""
    sizes = entry_sizes(checkpoint)
    return sizes + [EntrySize(0, 0, 0, sizes[0].dtype)] * (num_layers - len(sizes))


def attention_shape(checkpoint: Checkpoint, num_rows: int, max_tokens: int, block_tokens: int) -> AttentionShape:
    """What ways to attend are tried on: the model's heads, and each kind of its layers."""
    config: Any = checkpoint.model.config.get_text_config()
    kinds = layer_kinds(checkpoint.model.config, max_tokens)
    assert kinds is not None
    # Layers that see the same need not keep the same.
    size = next(size for size in sizes_of(checkpoint, len(kinds)) if size.num_heads)
    softcap, sinks = getattr(config, "attn_logit_softcapping", None), None
    if any(name.endswith("sinks") for name, _ in checkpoint.model.named_parameters()):
        sinks = torch.linspace(-1, 2, config.num_attention_heads, device=checkpoint.device)
    rules = [Rule(size.key_dim**-0.5, kind, sinks, softcap) for kind in dict.fromkeys(kinds)]
    return AttentionShape(config.num_attention_heads, size, tuple(rules), num_rows, block_tokens, max_tokens)


def num_blocks_within(
    checkpoint: Checkpoint, num_rows: int, max_tokens: int, block_tokens: int, memory_share: float
) -> int:
    """As many blocks as rows can fill, within a share of what is free. Raises ``ModelLoadError`` below one row."""
    per_row = -(-max_tokens // block_tokens)
    # One for nobody, and of each row one that has to be copied before it is written to.
    wanted, least = num_rows * (per_row + 1) + 1, per_row + 2
    block_bytes = block_tokens * sum(size.num_bytes for size in entry_sizes(checkpoint))
    budget = int(memory_share * free_bytes(checkpoint.device))
    if least * block_bytes > budget:
        raise ModelLoadError(
            f"the KV cache of one sequence of {max_tokens} tokens needs {least * block_bytes / 2**30:.2f} GiB, "
            f"{budget / 2**30:.2f} GiB are for it: lower FORKLIFT_MAX_CONTEXT_TOKENS"
        )
    return min(wanted, budget // block_bytes)
