"""Texts of one pass end to end, without padding, in encoders whose layers are BERT's. Inference thread only.

Embeddings and heads see texts padded to one length, as ever; the layers, where the work is, see one row of all tokens,
and only attention is computed text by text. Where a head reads the first token alone, the last layer computes no other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.models.encoders.native_encoder import NativeEncoder

NAME = "forklift_unpadded"
# What a head that reads more than the first token shows when the others are not there, as a share of its numbers.
FIRST_TOLERANCE = 1e-4
_PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output",
    "feed_forward_chunk",
)

# Of the pass that runs; None where texts are padded.
_lengths: list[int] | None = None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface. With the lengths of a pass each text of the one row attends to itself."""
    if _lengths is None:
        found: tuple[torch.Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    return attended(query, key, value, scaling, _lengths), None


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, rows: list[int]
) -> torch.Tensor:
    """``(1, num_queries, heads, size)`` of ``(1, heads, tokens, size)``; each text has so many ``rows`` of queries."""
    assert _lengths is not None, "asked in a pass without padding"
    keys, values = (torch.split(states, _lengths, 2) for states in (key, value))
    texts = zip(torch.split(query, rows, 2), keys, values, strict=True)
    return torch.cat([scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in texts], dim=2).transpose(1, 2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def _attending(lengths: list[int]) -> Iterator[None]:
    global _lengths
    _lengths = lengths
    try:
        yield
    finally:
        _lengths = None


class UnpaddedEncoder(torch.nn.Module):
    """Stands around the layers of an encoder. ``lengths`` are those of the texts of the next pass; without any a single
    text is taken whole, and several run as they come. ``native``: compiled code for the layers, where there is some."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder
        self.lengths: list[int] | None = None
        self.is_first_enough = False
        self.native: NativeEncoder | None = None
        self._num_threads = 1

    def forward(self, hidden_states: torch.Tensor, attention_mask: Any = None, **options: Any) -> Any:
        """States ``(num_texts, longest, size)``, zeros behind the end of a text."""
        lengths = self.lengths or ([hidden_states.shape[1]] if len(hidden_states) == 1 else None)
        if lengths is None:
            return self.encoder(hidden_states, attention_mask=attention_mask, **options)
        flat = torch.cat([row[:length] for row, length in zip(hidden_states, lengths, strict=True)])[None]
        firsts = self.is_first_enough and self.lengths is not None
        # A pass without lengths may be asked for the states of each layer.
        if self.native is not None and self.lengths is not None and self._is_served(lengths):
            found = self.native.run(flat[0], lengths, is_first_enough=firsts, num_threads=self._num_threads)
            if not firsts:
                torch.set_num_threads(self._num_threads)
        else:
            with _attending(lengths):
                found = (
                    self._first_states(flat, lengths)
                    if firsts
                    else self.encoder(flat, attention_mask=None, **options).last_hidden_state
                )[0]
        states = torch.zeros_like(hidden_states)
        for row, part in enumerate(torch.split(found, [1] * len(lengths) if firsts else lengths)):
            states[row, : len(part)] = part
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)

    def _is_served(self, lengths: list[int]) -> bool:
        """Whether compiled code takes a pass of such texts."""
        return self.native is not None and min(lengths) > 0 and self.native.serves(sum(lengths))

    @contextmanager
    def on_one_thread(self, lengths: list[int]) -> Iterator[None]:
        """A pass that compiled code takes: that alone takes all threads, and a head that reads more than first tokens.

        What is left are operations of a millisecond: while other threads of the process keep the cores busy, each of
        them waited until a second thread got one.
        """
        self._num_threads = torch.get_num_threads()
        if not self._is_served(lengths):
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self._num_threads)

    def _first_states(self, flat: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """The states ``(1, num_texts, size)`` of the first token of each text."""
        for layer in self.encoder.layer[:-1]:
            flat = layer(flat, None)
        last = self.encoder.layer[-1]
        attention = last.attention.self
        firsts = flat[:, [0, *itertools.accumulate(lengths[:-1])]]
        query, key, value = (
            part(states).view(1, states.shape[1], -1, attention.attention_head_size).transpose(1, 2)
            for part, states in ((attention.query, firsts), (attention.key, flat), (attention.value, flat))
        )
        rows = attended(query, key, value, attention.scaling, [1] * len(lengths)).reshape(firsts.shape)
        states: torch.Tensor = last.feed_forward_chunk(last.attention.output(rows, firsts))
        return states


def can_unpad(model: PreTrainedModel) -> bool:
    """Whether the model's layers are of a kind that this is written for."""
    encoder = getattr(model.base_model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    return (
        isinstance(layers, torch.nn.ModuleList)
        and len(layers) > 0
        and not getattr(model.config, "is_decoder", False)
        and getattr(model.config, "_attn_implementation", None) == "sdpa"
        and all(_has(layer, part) for layer in layers for part in _PARTS)
    )


def _has(layer: Any, path: str) -> bool:
    for name in path.split("."):
        layer = getattr(layer, name, None)
    return layer is not None


@torch.inference_mode()
def unpad(model: PreTrainedModel, *, reads_states: bool) -> None:
    """Change the model in place. Without ``reads_states`` its head may read the first token alone, which is tried."""
    encoder = UnpaddedEncoder(model.base_model.encoder)
    model.base_model.encoder = encoder
    model.set_attn_implementation(NAME)
    if reads_states:
        return
    ids = torch.arange(1, 13).view(2, 6) % model.config.vocab_size
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    with passing(model, [6, 4]):
        whole = model(input_ids=ids, attention_mask=mask).logits
        encoder.is_first_enough = True
        first = model(input_ids=ids, attention_mask=mask).logits
    bound = FIRST_TOLERANCE * float(whole.abs().max())
    encoder.is_first_enough = bool((whole - first).abs().max() <= bound)


def unpadded_encoder(model: PreTrainedModel) -> UnpaddedEncoder | None:
    """What stands around the layers; None where passes are padded."""
    encoder = getattr(model.base_model, "encoder", None)
    return encoder if isinstance(encoder, UnpaddedEncoder) else None


def is_unpadded(model: PreTrainedModel) -> bool:
    """Whether passes take texts without padding."""
    return unpadded_encoder(model) is not None


def layers_of(model: PreTrainedModel) -> list[Any]:
    """The layers that ``can_unpad``, or were."""
    encoder: Any = unpadded_encoder(model)
    return list((model.base_model if encoder is None else encoder).encoder.layer)


@contextmanager
def passing(model: PreTrainedModel, lengths: Sequence[int]) -> Iterator[None]:
    """A pass over texts of these lengths, padded on the right; nothing changes for a model that takes them so."""
    encoder = unpadded_encoder(model)
    if encoder is None:
        yield
        return
    encoder.lengths = list(lengths)
    try:
        with encoder.on_one_thread(encoder.lengths):
            yield
    finally:
        encoder.lengths = None
