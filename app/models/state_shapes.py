"""What the states of a model's layers take, known before its weights are read: from a pass on ``meta``, where tensors
have shapes and no content. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from app.models.checkpoint.cache_argument import cache_argument_of

NUM_TOKENS = 2


@torch.inference_mode()
def state_bytes(model: PreTrainedModel) -> int:
    """Bytes of the states of one sequence in all layers of ``model``, which is on ``meta``; 0 where no pass tells."""
    text = model.config.get_text_config()
    cache = DynamicCache(config=text)
    tokens = torch.zeros((1, NUM_TOKENS), dtype=torch.long, device="meta")
    caching: dict[str, Any] = {cache_argument_of(model): cache, "use_cache": True}
    try:
        with batched_experts(model.config), batched_experts(text):
            model.eval()(input_ids=tokens, **caching)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return 0
    return sum(state.numel() * state.element_size() for layer in cache.layers for state in states_of(layer))


@contextmanager
def batched_experts(config: Any) -> Iterator[None]:
    """The usual way to compute experts looks into what it computes, and another wants 16 bits."""
    usual = config._experts_implementation_internal
    config._experts_implementation_internal = "batched_mm"
    try:
        yield
    finally:
        config._experts_implementation_internal = usual


def states_of(layer: Any) -> list[torch.Tensor]:
    """The states that a layer of transformers' cache keeps."""
    kept = (getattr(layer, name, {}) for name in ("conv_states", "recurrent_states"))
    return [state for some in kept for state in some.values() if state is not None]
