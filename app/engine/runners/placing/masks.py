"""Attention masks over rows of the KV cache: a position sees its row up to itself. Inference thread."""

from __future__ import annotations

import torch


class MaskBuffer:
    """An additive mask ``(rows, 1, num_new, length)`` of ``dtype``, made once and written for each pass."""

    def __init__(self, num_rows: int, num_new: int, length: int, dtype: torch.dtype, device: torch.device):
        self.mask = torch.empty((num_rows, 1, num_new, length), dtype=dtype, device=device)
        self._is_hidden = torch.empty(self.mask.shape, dtype=torch.bool, device=device)
        self._entries = torch.arange(length, device=device)

    def write(self, positions: torch.Tensor) -> torch.Tensor:
        """The mask for ``positions`` ``(rows, num_new)``; nothing here waits for the device."""
        torch.gt(self._entries, positions[:, None, :, None], out=self._is_hidden)
        return self.mask.zero_().masked_fill_(self._is_hidden, torch.finfo(self.mask.dtype).min)


def additive_mask(positions: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor:
    """A new mask ``(rows, 1, num_new, length)`` for ``positions`` ``(rows, num_new)``."""
    num_rows, num_new = positions.shape
    return MaskBuffer(num_rows, num_new, length, dtype, positions.device).write(positions)
