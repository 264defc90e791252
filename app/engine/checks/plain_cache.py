"""Whether a model's own cache is one that rows of ours can stand in for. Inference thread only.

Asked of the config alone; what the engine then answers is compared at the load (``ladder.py``).
"""

from __future__ import annotations

from app.models.checkpoint.layer_kinds import LayerKind, are_plain, layer_kinds
from app.models.text_model import TextModel


def has_plain_cache(text_model: TextModel) -> bool:
    """Whether every layer keeps all keys and values of at least the whole context."""
    return are_plain(kinds_of(text_model))


def has_windows(text_model: TextModel) -> bool:
    """Whether layers keep keys and values, and some of them only the last ones or another one's."""
    kinds = kinds_of(text_model)
    return kinds is not None and not are_plain(kinds) and not any(kind.num_states for kind in kinds)


def has_states(text_model: TextModel) -> bool:
    """Whether layers keep what a convolution or a recurrence leaves behind."""
    return any(kind.num_states for kind in kinds_of(text_model) or ())


def has_attention(text_model: TextModel) -> bool:
    """Whether any layer reads keys and values."""
    return any(kind.has_entries for kind in kinds_of(text_model) or ())


def kinds_of(text_model: TextModel) -> tuple[LayerKind, ...] | None:
    """The kinds of the model's layers; None where rows of ours cannot hold what they keep."""
    model = text_model.checkpoint.model
    kinds = None if model.config.is_encoder_decoder else layer_kinds(model.config, text_model.context_tokens)
    is_told = kinds is not None and any(kind.num_states for kind in kinds)
    return None if getattr(model, "_is_stateful", False) and not is_told else kinds
