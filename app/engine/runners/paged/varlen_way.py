"""torch's attention over sequences of unlike lengths (FlashAttention), which takes tables of blocks.

In 16 bits, on a GPU. FlashAttention 2 wants blocks of 256 entries; whether the one that this torch brings takes smaller
ones is found out at the load. Inference thread only.
"""

from __future__ import annotations

import torch
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from app.engine.runners.paged.query_rows import Prepared, Rule, with_sinks


class VarlenWay:
    """One query for each sequence, at the end of what it sees."""

    name = "varlen"
    pays_for_longest = False

    def serves(self, rule: Rule) -> bool:
        """No caps, and no windows in pieces."""
        return rule.softcap is None and not rule.kind.by_chunk

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prepared: Prepared, rule: Rule
    ) -> torch.Tensor:
        places = prepared.places
        num_rows = query.shape[0]
        found, log_sums = varlen_attn(
            query,
            keys,
            values,
            torch.arange(num_rows + 1, dtype=torch.int32, device=query.device),
            None,
            1,
            places.longest,
            return_aux=AuxRequest(lse=True),
            scale=rule.scale,
            window_size=(-1, -1) if rule.kind.reach is None else (rule.kind.reach - 1, 0),
            enable_gqa=query.shape[1] != keys.shape[2],
            seqused_k=places.lengths.int(),
            block_table=places.tables,
        )
        # Heads first, whatever the function's page says (torch 2.13): the check at a load tells.
        return with_sinks(found, log_sums.view(-1, num_rows).t(), rule.sinks)
