"""What each layer of a model keeps of the tokens before, read from its config as transformers' own cache reads it.

Knows neither caches nor engines; what an engine makes of it is compared at the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from app.core.settings import Settings

CHUNKED = "chunked_attention"
# Names of kinds whose layers read what others keep.
READERS = {"full_attention": None, "sliding_attention": "sliding_window", CHUNKED: "attention_chunk_size"}
# Layers of transformers' cache that keep states, and what else of the tokens before.
STATEFUL: dict[str, type | None] = {
    "LinearAttentionLayer": None,
    "LinearAttentionAndFullAttentionLayer": DynamicLayer,
    "LinearAttentionAndSlidingWindowAttentionLayer": DynamicSlidingWindowLayer,
}


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What queries of a layer see: all positions before them, or of those the last ``reach``, themselves included.

    ``by_chunk``: instead of the last ones, those in the same of neighbouring pieces of ``reach`` positions.
    ``has_entries``: False where the layer reads the entries of another one of its kind, or has no attention.
    ``num_states``: how many pairs of states it keeps of a convolution, a recurrence, or both.
    """

    reach: int | None = None
    by_chunk: bool = False
    has_entries: bool = True
    num_states: int = 0

    def num_entries(self, max_tokens: int, most_new: int) -> int:
        """Entries that a row must have for any pass of at most ``most_new`` tokens of a row."""
        if not self.has_entries:
            return 0
        return max_tokens if self.reach is None else min(max_tokens, self.reach + most_new)


FULL = LayerKind()
SNAPSHOTS_PER_ROW = 2
# No pass of the check at a load reads more tokens of a row, whatever the settings say.
LEAST_MOST_NEW = 16


def most_new_tokens(settings: Settings) -> int:
    """The most tokens of one row that a pass reads: a piece of a prompt, or a token and its draft."""
    return max(settings.prefill_chunk_tokens, settings.num_draft_tokens + 1, LEAST_MOST_NEW)


def num_snapshots(settings: Settings) -> int:
    """How often the states of a sequence are kept beside those of the rows, so that others may go on from there."""
    return SNAPSHOTS_PER_ROW * settings.max_batch_size if settings.prefix_cache else 0


def layer_kinds(config: PreTrainedConfig, max_tokens: int) -> tuple[LayerKind, ...] | None:
    """The kind of every layer for rows of at most ``max_tokens``; None where one keeps anything but keys, values
    and states that transformers' cache knows.
    """
    text = config.get_text_config()
    if text.is_encoder_decoder or has_own_windows(text, max_tokens):
        return None
    own = DynamicCache(config=text).layers
    names = getattr(text, "layer_types", None) or [None] * len(own)
    kinds = [kind_of(text, layer, name, max_tokens) for layer, name in zip(own, names, strict=False)]
    # Before transformers 5.24 its cache had no layers for those at the end that read others' entries.
    kinds += [reader_of(text, name, max_tokens) for name in names[len(own) :]]
    return None if None in kinds else tuple(kind for kind in kinds if kind is not None)


def has_own_windows(text: Any, max_tokens: int) -> bool:
    """Whether layers see fewer tokens than transformers' cache knows of, by masks of their own (GPT-Neo's)."""
    return "local" in (getattr(text, "attention_layers", None) or ()) and text.window_size < max_tokens


def latent_rank(config: PreTrainedConfig) -> int | None:
    """The size of the latents of which layers make keys and values; None where there are none, or of several sizes."""
    try:
        rank: int | None = getattr(config.get_text_config(), "kv_lora_rank", None)
    except RuntimeError:
        return None
    return rank


def keeps_all(config: PreTrainedConfig) -> bool:
    """Whether every layer keeps all keys and values, whatever of them its queries see."""
    text = config.get_text_config()
    return not text.is_encoder_decoder and all(type(one) is DynamicLayer for one in DynamicCache(config=text).layers)


def kind_of(config: Any, layer: Any, name: str | None, max_tokens: int) -> LayerKind | None:
    """The kind of one layer that transformers keeps in ``layer``; None for what is not known here."""
    if type(layer).__name__ in STATEFUL:
        keys = STATEFUL[type(layer).__name__]
        kind = LayerKind(has_entries=False) if keys is None else kind_of_keys(config, layer, keys, name, max_tokens)
        return None if kind is None else replace(kind, num_states=layer.number_of_states)
    return kind_of_keys(config, layer, type(layer), name, max_tokens)


def kind_of_keys(config: Any, layer: Any, keys: type, name: str | None, max_tokens: int) -> LayerKind | None:
    """The same of its keys and values, which it keeps as a layer of the class ``keys`` does."""
    if keys is DynamicLayer:
        return FULL
    if keys is DynamicSlidingWindowLayer:
        is_chunked = name == CHUNKED or (name is None and getattr(config, "sliding_window", None) is None)
        return seen(layer.sliding_window, is_chunked, max_tokens)
    return reader_of(config, name, max_tokens) if keys.__name__ == "DummyLayer" else None


def reader_of(config: Any, name: str | None, max_tokens: int) -> LayerKind | None:
    """The kind of a layer that keeps nothing of its own."""
    if name not in READERS:
        return LayerKind(has_entries=False)
    field = READERS[name]
    kind = FULL if field is None else seen(getattr(config, field), name == CHUNKED, max_tokens)
    return LayerKind(kind.reach, kind.by_chunk, has_entries=False)


def seen(reach: int, by_chunk: bool, max_tokens: int) -> LayerKind:
    """A bound that no row comes up to is none."""
    return FULL if reach >= max_tokens else LayerKind(reach, by_chunk)


def are_plain(kinds: Sequence[LayerKind] | None) -> bool:
    """Whether every layer keeps all keys and values of at least the whole context."""
    return kinds is not None and all(kind == FULL for kind in kinds)
