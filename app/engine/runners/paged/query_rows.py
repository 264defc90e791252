"""Attention of one query per row over contexts of unlike lengths, which lie in blocks: what it is given and gives.

``Attend`` names the ways to compute it; ``reference`` is what they are compared with. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from app.models.checkpoint.layer_kinds import FULL, LayerKind


@dataclass(frozen=True)
class RowPlaces:
    """Where the entries of rows lie: ``tables`` ``(rows, num_columns)`` of blocks, int32, and how many of them there
    are, ``lengths`` ``(rows,)``, int64. A row's newest entry, the query's own, is the last one.
    """

    tables: torch.Tensor
    lengths: torch.Tensor
    block_tokens: int

    @property
    def longest(self) -> int:
        """Entries that the tables have room for."""
        return self.tables.shape[1] * self.block_tokens


@dataclass(frozen=True)
class Rule:
    """What a layer's queries see (``kind``), and what becomes of their logits before weights are made of them.

    ``sinks`` ``(heads,)``: a logit for each head that has no value; ``softcap`` holds logits below it.
    """

    scale: float
    kind: LayerKind = FULL
    sinks: torch.Tensor | None = None
    softcap: float | None = None


@dataclass
class Prepared:
    """What a way has made of the places of a pass, for each kind of layer: ``kept`` serves all layers of the kind."""

    places: RowPlaces
    kept: dict[Hashable, Any] = field(default_factory=dict)


class QueryWay(Protocol):
    """One way to attend. ``pays_for_longest``: what it costs depends on how wide the tables are."""

    name: str
    pays_for_longest: bool

    def serves(self, rule: Rule) -> bool:
        """Whether it knows what the rule wants."""
        ...

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prepared: Prepared, rule: Rule
    ) -> torch.Tensor:
        """``query`` ``(rows, heads, dim)`` on ``(num_blocks, block_tokens, kv_heads, dim)``; ``(rows, heads, dim)``.

        Reads nothing to the host, and gives no shape that depends on the numbers in the places.
        """
        ...


def first_seen(lengths: torch.Tensor, kind: LayerKind) -> torch.Tensor:
    """The first position ``(rows,)`` that the newest query of each row sees."""
    if kind.reach is None:
        return torch.zeros_like(lengths)
    newest = lengths - 1
    if kind.by_chunk:
        return (newest - newest % kind.reach).clamp_(min=0)
    return (lengths - kind.reach).clamp_(min=0)


def hidden(places: RowPlaces, kind: LayerKind) -> torch.Tensor:
    """What the queries do not see of the entries in the tables' order, ``(rows, longest)``."""
    at = torch.arange(places.longest, device=places.lengths.device)
    is_hidden = at >= places.lengths[:, None]
    return is_hidden if kind.reach is None else is_hidden | (at < first_seen(places.lengths, kind)[:, None])


def gathered(pool: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """The entries of rows in their order, ``(rows, heads, length, dim)``: a view of a copy."""
    num_rows, num_columns = tables.shape
    found = pool.index_select(0, tables.reshape(-1))
    return found.view(num_rows, num_columns * pool.shape[1], *pool.shape[2:]).transpose(1, 2)


def reference(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, places: RowPlaces, rule: Rule
) -> torch.Tensor:
    """What every way must give, in float32, written down as plainly as can be; ``(rows, heads, dim)``."""
    found = []
    for row, (table, length) in enumerate(zip(places.tables, places.lengths.tolist(), strict=True)):
        first = int(first_seen(places.lengths[row : row + 1], rule.kind))
        theirs = [pool[table.long()].flatten(0, 1)[first:length].float().transpose(0, 1) for pool in (keys, values)]
        mine, wanted = (heads.repeat_interleave(query.shape[1] // heads.shape[0], 0) for heads in theirs)
        logits = (mine @ query[row, :, :, None].float())[:, :, 0] * rule.scale
        if rule.softcap is not None:
            logits = torch.tanh(logits / rule.softcap) * rule.softcap
        if rule.sinks is not None:
            logits = torch.cat((logits, rule.sinks[:, None].float()), 1)
        weights = logits.softmax(1)[:, : length - first]
        found.append((weights[:, None] @ wanted)[:, 0])
    return torch.stack(found)


def with_sinks(found: torch.Tensor, log_sums: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Attention ``(rows, heads, dim)`` whose weights share with a sink for each head, given what they summed to without
    (the logarithm of the sum of exponentials, ``(rows, heads)``)."""
    if sinks is None:
        return found
    share = torch.sigmoid(log_sums.float() - sinks.float())
    return (found.float() * share[..., None]).to(found.dtype)
