"""Whether a model's own cache is one that rows of ours can stand in for. Inference thread only.

Asked of the config alone; what the engine then answers is compared at the load (``ladder.py``).
"""

from __future__ import annotations

from app.core.settings import Settings
from app.models.checkpoint.layer_kinds import LayerKind, are_plain, keeps_all, layer_kinds, most_new_tokens
from app.models.text_model import TextModel


def has_plain_cache(text_model: TextModel) -> bool:
    """Whether every layer keeps all keys and values of at least the whole context."""
    return are_plain(kinds_of(text_model))


def counts_from_the_end(text_model: TextModel) -> bool:
    """Whether the model keeps all keys and values, but tells by their number which ones a query sees (GPT-Neo), or
    makes distances of a mask of padding (BLOOM, and Falcon where it has them).
    """
    model = text_model.checkpoint.model
    if getattr(model, "_is_stateful", False) or turning_length(text_model) is not None or not keeps_all(model.config):
        return False
    has_alibi = hasattr(model.base_model, "build_alibi_tensor") or bool(getattr(model.config, "alibi", False))
    return has_alibi or not has_plain_cache(text_model)


def has_windows(text_model: TextModel) -> bool:
    """Whether layers keep keys and values, and some of them only the last ones or another one's."""
    kinds = kinds_of(text_model)
    return kinds is not None and not are_plain(kinds) and not any(kind.num_states for kind in kinds)


def window_room(text_model: TextModel, settings: Settings) -> int | None:
    """The tokens of a row that a pass may bring to layers that keep the last entries only; None where none does."""
    return most_new_tokens(settings) if has_windows(text_model) else None


def has_states(text_model: TextModel) -> bool:
    """Whether layers keep what a convolution or a recurrence leaves behind."""
    return any(kind.num_states for kind in kinds_of(text_model) or ())


def has_attention(text_model: TextModel) -> bool:
    """Whether any layer reads keys and values."""
    return any(kind.has_entries for kind in kinds_of(text_model) or ())


def kinds_of(text_model: TextModel) -> tuple[LayerKind, ...] | None:
    """The kinds of the model's layers; None where rows of ours cannot hold what they keep."""
    model = text_model.checkpoint.model
    kinds = None
    if not model.config.is_encoder_decoder and turning_length(text_model) is None:
        kinds = layer_kinds(model.config, text_model.context_tokens)
    is_told = kinds is not None and any(kind.num_states for kind in kinds)
    return None if getattr(model, "_is_stateful", False) and not is_told else kinds


def turning_length(text_model: TextModel) -> int | None:
    """Up to how many tokens of a text positions turn queries and keys in one way, and beyond in another (LongRoPE).

    ``generate`` reads a text anew that grows beyond; rows of one pass would all be turned as the longest of them. None
    where no text of the context is so long.
    """
    text = text_model.checkpoint.model.config.get_text_config()
    told = getattr(text, "rope_parameters", None) or {}
    lengths = [
        one.get("original_max_position_embeddings") or text.original_max_position_embeddings
        for one in (told, *told.values())
        if isinstance(one, dict) and one.get("rope_type") == "longrope"
    ]
    return min((length for length in lengths if length < text_model.context_tokens), default=None)
