"""What the next pass touches in a cache in blocks, and the attention that reads it.

A pass holds a token for each of rows 0, 1, .. and chunks of prompts behind them, laid end to end. Rows attend in the
way that was chosen for them; a chunk to its own row's entries, gathered. Inference thread only; knows neither jobs nor
sampling.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from app.engine.generation.plan import Chunk
from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.cache import Window
from app.engine.runners.paged.query_rows import Prepared, QueryWay, RowPlaces, Rule, gathered
from app.engine.runners.row_attention import capped_attention, refuse_other_windows, told_window
from app.models.checkpoint.layer_kinds import LayerKind
from app.models.checkpoint.transfer import sent_whole

PAGED_ATTENTION = "forklift_paged"


class ChunkPlace(NamedTuple):
    """The blocks of a chunk's row up to its end, ``(1, num_columns)``, and its positions."""

    table: torch.Tensor
    start: int
    end: int


class PagedWindow(Window):
    """Set before each pass; ``kinds`` are those of the layers."""

    def __init__(self, pages: Pages, kinds: tuple[LayerKind, ...], max_tokens: int, device: torch.device):
        super().__init__()
        self.kinds, self.max_tokens = kinds, max_tokens
        self._pages, self._device = pages, device
        self.chunks: list[ChunkPlace] = []

    def set_rows(self, places: RowPlaces, slots: torch.Tensor, way: QueryWay) -> None:
        """A pass of rows alone: token i is row i's newest one, and its entry goes to ``slots[i]``."""
        self.num_rows, self._slots, self.way = places.lengths.shape[0], slots, way
        self.prepared, self.chunks = Prepared(places), []
        self._masks: dict[tuple[LayerKind, int], torch.Tensor] = {}

    def set_pieces(self, starts: list[int], chunks: list[Chunk], places: RowPlaces | None, way: QueryWay) -> None:
        """Rows (``places``; None: there are none) and the chunks behind them."""
        at = [(row, start) for row, start in enumerate(starts)]
        at += [(chunk.row, position) for chunk in chunks for position in range(chunk.start, chunk.end)]
        size, tables = self._pages.block_tokens, self._pages.tables
        slots = [tables[row][position // size] * size + position % size for row, position in at]
        places = places or RowPlaces(self._tensor([[]]).int()[:0], self._tensor([]), size)
        self.set_rows(places, self._tensor(slots), way)
        self.chunks = [self._place(chunk) for chunk in chunks]

    def write_blocks(self, pool: torch.Tensor, states: torch.Tensor) -> None:
        """Store ``(1, num_heads, num_tokens, dim)`` states in ``(num_blocks, block_tokens, num_heads, dim)``."""
        pool.flatten(0, 1)[self._slots] = states[0].transpose(0, 1)

    def chunk_mask(self, index: int, kind: LayerKind, dtype: torch.dtype) -> torch.Tensor:
        """What the queries of a chunk see of its row's entries, additive ``(1, 1, num_new, end)``."""
        if (kind, index) not in self._masks:
            _, start, end = self.chunks[index]
            positions = torch.arange(start, end, device=self._device)[:, None]
            back = positions - torch.arange(end, device=self._device)
            is_hidden = back < 0
            if kind.reach is not None:
                is_hidden |= back > (positions % kind.reach if kind.by_chunk else kind.reach - 1)
            mask = torch.zeros(is_hidden.shape, dtype=dtype, device=self._device)
            self._masks[kind, index] = mask.masked_fill_(is_hidden, torch.finfo(dtype).min)[None, None]
        return self._masks[kind, index]

    def _place(self, chunk: Chunk) -> ChunkPlace:
        num_columns = -(-chunk.end // self._pages.block_tokens)
        table = self._tensor([self._pages.tables[chunk.row][:num_columns]]).int()
        return ChunkPlace(table, chunk.start, chunk.end)

    def _tensor(self, numbers: Any) -> torch.Tensor:
        return sent_whole(numbers, self._device)


def paged_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    mixed_window: PagedWindow,
    scaling: float | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    position_bias: torch.Tensor | None = None,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of ``query`` ``(1, heads, num_tokens, dim)`` to blocks ``(num_blocks, block_tokens, kv_heads, dim)``.

    Returns ``(1, num_tokens, heads, dim)``. Raises ``ValueError`` where the model means other entries than we do,
    or adds what is not known here.
    """
    if position_bias is not None:
        raise ValueError("no attention to blocks is known that adds a bias by position")
    window, at = mixed_window, mixed_window.num_rows
    kind = window.kinds[module.layer_idx]
    refuse_other_windows(kind, told_window(module, kind, sliding_window), window.max_tokens)
    rule = Rule(query.shape[-1] ** -0.5 if scaling is None else scaling, kind, s_aux, softcap)
    pieces = []
    if at:
        rows = query[0, :, :at].transpose(0, 1)
        pieces.append(window.way.attend(rows, key, value, window.prepared, rule)[None])
    for index, chunk in enumerate(window.chunks):
        end = at + chunk.end - chunk.start
        pieces.append(chunk_attention_to_blocks(query[:, :, at:end], key, value, window, index, rule))
        at = end
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1), None


def chunk_attention_to_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: PagedWindow, index: int, rule: Rule
) -> torch.Tensor:
    """Attention of one chunk, ``(1, num_tokens, heads, head_dim)``; where all before is seen, by torch's flash kernel.

    That takes a causal mask by its corner, and heads that share keys as they are.
    """
    chunk = window.chunks[index]
    keys, values = (gathered(pool, chunk.table)[:, :, : chunk.end] for pool in (key, value))
    is_whole = rule.kind.reach is None or (chunk.end <= rule.kind.reach)
    if rule.sinks is not None or rule.softcap is not None:
        mask = window.chunk_mask(index, rule.kind, query.dtype)
        found, _ = capped_attention(
            None, query, keys, values, mask, scaling=rule.scale, s_aux=rule.sinks, softcap=rule.softcap
        )
        return found
    if is_whole:
        mask = causal_lower_right(query.shape[2], chunk.end)
    else:
        mask = window.chunk_mask(index, rule.kind, query.dtype)
    shares = query.shape[1] != keys.shape[1]
    found = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=rule.scale, enable_gqa=shares)
    return found.transpose(1, 2)
