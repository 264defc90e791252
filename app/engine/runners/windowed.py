"""Passes over models of which some layers see the last entries of a row only, or read another layer's.

All passes are laid end to end, as mixed ones: so attention is ours in each of them, which knows for every kind of layer
what its queries see and where in a row that lies. Models may add sinks and soft caps. Inference thread only; knows
neither jobs nor sampling.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import KVCache, KVLayer, Window
from app.engine.kv.reach import Reach
from app.engine.kv.ring_layer import RingLayer
from app.engine.runners.graphs.fed import Fed, as_lists
from app.engine.runners.mixed import MixedRunner, MixedWindow, asks_interface, chunk_attention
from app.engine.runners.row_attention import capped_attention, refuse_other_windows, row_attention, told_window
from app.models.checkpoint.layer_kinds import LayerKind, layer_kinds
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import sent_whole

WINDOWED_ATTENTION = "forklift_windowed"


class RingWindow(MixedWindow):
    """What the next pass touches in layers of several kinds; masks are made for each kind once in a pass."""

    attention = WINDOWED_ATTENTION

    def set_kinds(self, kinds: tuple[LayerKind, ...], most_new: int, max_tokens: int) -> None:
        """The kind of each layer, of rows of ``max_tokens`` positions to which a pass adds at most ``most_new``."""
        self.kinds, self.most_new, self.max_tokens = kinds, most_new, max_tokens

    def set_pieces(self, positions: list[int], chunks: list[Chunk], device: torch.device, dtype: torch.dtype) -> None:
        assert all(len(chunk.tokens) <= self.most_new for chunk in chunks), "entries that are seen would be overwritten"
        super().set_pieces(positions, chunks, device, dtype)
        self._device, self._dtype = device, dtype
        self._masks: dict[tuple[LayerKind, int], torch.Tensor | None] = {}

    def size(self, kind: LayerKind) -> int:
        """Entries of a row that the layers of a kind read."""
        return LayerKind(kind.reach).num_entries(self.max_tokens, self.most_new)

    def write_ring(self, buffer: torch.Tensor, states: torch.Tensor, size: int) -> torch.Tensor:
        """Store ``(1, num_kv_heads, num_tokens, head_dim)`` states where they belong; the whole buffer."""
        at = self.num_rows
        if at == 1:
            buffer[0, :, self.start % size] = states[0, :, 0]
        elif at:
            buffer[self.rows, :, self.row_positions % size] = states[0, :, :at].transpose(0, 1)
        for chunk in self.chunks or []:
            end = at + len(chunk.tokens)
            first = chunk.start % size
            num_behind = min(end - at, size - first)
            buffer[chunk.row, :, first : first + num_behind] = states[0, :, at : at + num_behind]
            buffer[chunk.row, :, : end - at - num_behind] = states[0, :, at + num_behind : end]
            at = end
        return buffer

    def rows_mask(self, kind: LayerKind) -> torch.Tensor | None:
        """What the lone queries of rows 0, 1, .. see of the first ``size`` entries of theirs; None: all of them."""
        if kind.reach is None:
            return self.row_mask
        if self.is_single and self.start < kind.reach:
            return None
        if (kind, -1) not in self._masks:
            positions = sent_whole([self.start], self._device) if self.is_single else self.row_positions
            self._masks[kind, -1] = self._ring_mask(kind, positions[:, None], self.row_length)
        return self._masks[kind, -1]

    def chunk_mask(self, kind: LayerKind, index: int) -> torch.Tensor | None:
        """What the queries of a chunk see of the first entries of its row; None: what lies before each."""
        if kind.reach is None:
            return self.chunk_masks[index]
        assert self.chunks is not None
        chunk = self.chunks[index]
        if chunk.start == 0 and chunk.end <= kind.reach:
            return None
        if (kind, index) not in self._masks:
            positions = torch.arange(chunk.start, chunk.end, device=self._device)[None]
            self._masks[kind, index] = self._ring_mask(kind, positions, chunk.end)
        return self._masks[kind, index]

    def _ring_mask(self, kind: LayerKind, positions: torch.Tensor, length: int) -> torch.Tensor:
        """An additive mask ``(rows, 1, num_new, entries)`` for ``positions`` ``(rows, num_new)``."""
        assert kind.reach is not None
        size = self.size(kind)
        entries = torch.arange(min(length, size), device=self._device)
        back = (positions[:, None, :, None] - entries) % size
        most = positions % kind.reach if kind.by_chunk else positions.clamp(max=kind.reach - 1)
        mask = torch.zeros(back.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(back > most[:, None, :, None], torch.finfo(self._dtype).min)


def windowed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    mixed_window: RingWindow,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of ``query`` ``(1, heads, num_tokens, head_dim)`` to buffers ``(num_rows, kv_heads, capacity, ..)``.

    Returns ``(1, num_tokens, heads, head_dim)``. Raises ``ValueError`` where the model means other entries than we do.
    """
    window, at = mixed_window, mixed_window.num_rows
    kind = window.kinds[module.layer_idx]
    refuse_other_windows(kind, told_window(module, kind, options.pop("sliding_window", None)), window.max_tokens)
    options.pop("is_causal", None)
    is_plain = options.get("s_aux") is None and options.get("softcap") is None
    size, pieces, is_packed = window.size(kind), [], window.is_packed and kind.reach is None
    if at:
        rows = query[0, :, :at].transpose(0, 1)[:, :, None]
        length = min(window.row_length, size)
        keys, values = (window.rows_of(some, length, is_packed=is_packed) for some in (key, value))
        mask = window.rows_mask(kind)
        attend = row_attention if is_plain else capped_attention
        pieces.append(attend(module, rows, keys, values, mask, **options)[0].transpose(0, 1))
    for index, chunk in enumerate(window.chunks or []):
        end, length, mask = at + len(chunk.tokens), min(chunk.end, size), window.chunk_mask(kind, index)
        keys, values = (window.chunk_of(some, index, length, is_packed=is_packed) for some in (key, value))
        if is_plain:
            pieces.append(chunk_attention(module, query[:, :, at:end], keys, values, mask, **options))
        else:
            pieces.append(capped_attention(module, query[:, :, at:end], keys, values, mask, **options)[0])
        at = end
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1), None


class WindowedRunner(MixedRunner):
    """Runs a model with several kinds of layers; a pass reads at most ``most_new`` tokens of a row."""

    def __init__(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int, *, most_new: int):
        ALL_ATTENTION_FUNCTIONS.register(WINDOWED_ATTENTION, windowed_attention)
        kinds, window = layer_kinds(checkpoint.model.config, max_tokens), RingWindow()
        assert kinds is not None, "a layer keeps more than keys and values"
        window.set_kinds(kinds, most_new, max_tokens)
        self.reach = Reach.of([(window.size(kind), most_new) for kind in kinds if kind.reach is not None])
        super().__init__(checkpoint, num_rows, max_tokens, window)

    def _make_cache(self, num_rows: int, max_tokens: int, window: Window) -> KVCache:
        assert isinstance(window, RingWindow)
        layers: list[KVLayer] = []
        for kind in window.kinds:
            size = kind.num_entries(max_tokens, window.most_new)
            is_ring = kind.reach is not None
            layers.append(RingLayer(num_rows, size, window, window) if is_ring else KVLayer(num_rows, size, window))
        return KVCache(layers, num_rows, max_tokens, window)

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        """Feed ``tokens`` at positions ``start``.. of ``row``.

        Logits ``(1, vocab)`` behind the last token, or ``(len(tokens), vocab)`` behind each.
        """
        return self.mixed([], [], [Chunk(row, tokens, start, all_logits)])[1][0]

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        """Feed as many tokens to each of rows 0, 1, ..; logits ``(num_rows, num_new, vocab)`` behind each."""
        tokens = as_lists(tokens)
        if len(tokens[0]) == 1:
            return self.mixed([some[0] for some in tokens], starts, [])[0]
        chunks = [Chunk(row, some, start, True) for row, (some, start) in enumerate(zip(tokens, starts, strict=True))]
        return torch.stack(self.mixed([], [], chunks)[1])


def can_attend(checkpoint: Checkpoint) -> bool:
    """Whether the model's attention can be replaced by one that knows sinks and caps, too."""
    config = checkpoint.model.config.get_text_config()
    # Not every family whose code asks the interface says so (Qwen3.5, transformers 5.24).
    is_replaceable = bool(checkpoint.model._supports_attention_backend) or asks_interface(checkpoint.model)
    return is_replaceable and config._attn_implementation in ("sdpa", "eager")
