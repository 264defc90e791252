"""FlexAttention on tables of blocks: its decoding kernel reads the blocks of a row and no others.

Compiled, which takes a GPU with Triton; without that torch computes the same over all blocks, which only a test wants.
Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from app.engine.runners.graphs.fixed_shapes import smallest
from app.engine.runners.paged.query_rows import Prepared, RowPlaces, Rule, first_seen, with_sinks
from app.models.checkpoint.layer_kinds import LayerKind

# Queries in a block of the mask; there is one.
QUERY_BLOCK = 128
# The second number of rows that it is compiled for, and how many times it may be compiled.
FEW_ROWS = 8
MOST_COMPILED = 64


class FlexWay:
    """``flex`` is torch's function, compiled. It is compiled for a few numbers of rows, up to ``num_rows``; others are
    filled up: how far contexts are split among processors is decided by that number, and a lone row needs it most.

    Query heads that share keys are queries of one head: its kernel for few queries reads keys once for all of them, and
    groups of other sizes than powers of two it would not take.
    """

    name = "FlexAttention"
    pays_for_longest = False

    def __init__(self, num_rows: int, flex: Callable[..., Any] | None = None):
        self._sizes = sorted({1, min(FEW_ROWS, num_rows), num_rows})
        # More than that, and torch computes over all blocks without a word. Models of one process share them.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILED)
        self._flex = flex or torch.compile(flex_attention, dynamic=False)

    def serves(self, rule: Rule) -> bool:
        return True

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prepared: Prepared, rule: Rule
    ) -> torch.Tensor:
        num_real, num_heads, dim = query.shape
        num_rows, num_kv = smallest(self._sizes, num_real), keys.shape[2]
        group = num_heads // num_kv
        kept = rule.kind, group
        if kept not in prepared.kept:
            places = filled_up(prepared.places, num_rows)
            prepared.kept[kept] = block_mask(places, rule.kind, keys.shape[0], group)
        queries = torch.nn.functional.pad(query, (0, 0, 0, 0, 0, num_rows - num_real))
        pools = [pool.flatten(0, 1).transpose(0, 1)[None] for pool in (keys, values)]
        found, aux = self._flex(
            queries.view(num_rows, num_kv, group, dim),
            *pools,
            score_mod=capped(rule.softcap),
            block_mask=prepared.kept[kept],
            scale=rule.scale,
            return_aux=AuxRequest(lse=True),
        )
        found, sums = found.reshape(num_rows, num_heads, -1), aux.lse.reshape(num_rows, num_heads)
        return with_sinks(found[:num_real], sums[:num_real], rule.sinks)


def filled_up(places: RowPlaces, num_rows: int) -> RowPlaces:
    """The same with rows that have no entry behind them."""
    more = num_rows - places.lengths.shape[0]
    tables = torch.nn.functional.pad(places.tables, (0, 0, 0, more))
    return RowPlaces(tables, torch.nn.functional.pad(places.lengths, (0, more)), places.block_tokens)


def block_mask(places: RowPlaces, kind: LayerKind, num_blocks: int, num_queries: int) -> BlockMask:
    """Which blocks of the pool each row reads, and which entries of those: by their positions in the row.

    All ``num_queries`` of a row see the same.
    """
    tables, lengths, size = places.tables, places.lengths, places.block_tokens
    first = first_seen(lengths, kind)
    first_column, end_column = first // size, (lengths + size - 1) // size
    columns = torch.arange(tables.shape[1], device=tables.device)
    # The columns that are read come first, in their order.
    wanted = (columns + first_column[:, None]).clamp_(max=tables.shape[1] - 1)
    indices = tables.gather(1, wanted)
    # Which column of its row a block is in: none, for those of others.
    column_of = torch.full((tables.shape[0], num_blocks), -1, dtype=torch.int32, device=tables.device)
    is_read = (columns >= first_column[:, None]) & (columns < end_column[:, None])
    # A block of nobody takes what would be written for columns that are not read.
    column_of.scatter_(1, torch.where(is_read, tables, 0).long(), columns.int().expand_as(tables).contiguous())
    column_of.select(1, 0).fill_(-1)

    def is_seen(row: torch.Tensor, _head: torch.Tensor, _query: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        column = column_of[row, at // size]
        position = column * size + at % size
        return (column >= 0) & (position >= first[row]) & (position < lengths[row])

    return BlockMask.from_kv_blocks(
        (end_column - first_column).clamp_(min=0).int()[:, None, None],
        indices.int()[:, None, None],
        BLOCK_SIZE=(QUERY_BLOCK, size),
        mask_mod=is_seen,
        seq_lengths=(num_queries, num_blocks * size),
        compute_q_blocks=False,
    )


def capped(softcap: float | None) -> Callable[..., torch.Tensor] | None:
    """The change to a logit that holds it below ``softcap``."""
    if softcap is None:
        return None

    def cap(score: torch.Tensor, *_place: torch.Tensor) -> torch.Tensor:
        return torch.tanh(score / softcap) * softcap

    return cap
