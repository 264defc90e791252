"""Whether a model's own cache is one that the slot KV cache can stand in for. Inference thread only.

Asked of the config alone; what the engine then answers is compared at the load (``ladder.py``).
"""

from __future__ import annotations

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from app.models.text_model import TextModel


def has_plain_cache(text_model: TextModel) -> bool:
    """Whether every layer keeps all keys and values of at least the whole context."""
    config = text_model.checkpoint.model.config
    if config.is_encoder_decoder or getattr(text_model.checkpoint.model, "_is_stateful", False):
        return False
    layers = DynamicCache(config=config.get_text_config()).layers
    return all(
        type(layer) is DynamicLayer
        or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= text_model.context_tokens)
        for layer in layers
    )
