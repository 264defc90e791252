"""Rows' entries are gathered into one tensor, as wide as the widest table, and attended to under a mask.

Every torch has that, on every device; every row pays for the longest one. Inference thread only.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from app.engine.runners.paged.query_rows import Prepared, Rule, gathered, hidden
from app.engine.runners.row_attention import capped_attention
from app.models.checkpoint.layer_kinds import LayerKind


class GatheredWay:
    """The queries that share a head of keys are the rows of one product: no head is copied."""

    name = "gathered"
    pays_for_longest = True

    def serves(self, rule: Rule) -> bool:
        return True

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prepared: Prepared, rule: Rule
    ) -> torch.Tensor:
        mask = mask_of(prepared, rule.kind, query.dtype)
        theirs, wanted = (gathered(pool, prepared.places.tables) for pool in (keys, values))
        if rule.sinks is not None or rule.softcap is not None:
            queries, sinks = query[:, :, None], rule.sinks
            found, _ = capped_attention(
                None, queries, theirs, wanted, mask, scaling=rule.scale, s_aux=sinks, softcap=rule.softcap
            )
            return found[:, 0]
        return self._plain(query, theirs, wanted, mask, rule.scale)

    def _plain(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        num_rows, num_heads, dim = query.shape
        grouped = query.reshape(num_rows, keys.shape[1], -1, dim)
        found = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
        return found.reshape(num_rows, num_heads, -1)


class GatheredHeadsWay(GatheredWay):
    """torch is told that heads share keys, and does as it sees fit."""

    name = "gathered, heads by torch"

    def _plain(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        found = scaled_dot_product_attention(
            query[:, :, None], keys, values, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != keys.shape[1]
        )
        return found[:, :, 0]


def mask_of(prepared: Prepared, kind: LayerKind, dtype: torch.dtype) -> torch.Tensor:
    """An additive mask ``(rows, 1, 1, longest)``, made once for all layers of a kind."""
    if kind not in prepared.kept:
        is_hidden = hidden(prepared.places, kind)[:, None, None]
        mask = torch.zeros(is_hidden.shape, dtype=dtype, device=is_hidden.device)
        prepared.kept[kind] = mask.masked_fill_(is_hidden, torch.finfo(dtype).min)
    found: torch.Tensor = prepared.kept[kind]
    return found
