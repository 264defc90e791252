"""What a layer keeps of a token. Inference thread."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class EntrySize:
    """What a layer keeps of a token: key and value, ``num_heads`` of each; 0 heads where it keeps nothing."""

    num_heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return self.num_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize
