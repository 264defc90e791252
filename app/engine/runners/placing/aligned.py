"""Decoding in rows that end at the same place, for models that tell by the length of all keys which ones a query sees.

Such models (BLOOM, GPT-Neo) take a mask of padding only, as transformers pads on the left. Rows lie in the cache as
everybody's do; what a pass reads of several is shifted to one end. Inference thread only.
"""

from __future__ import annotations

import torch

from app.engine.kv.cache import Window
from app.engine.runners.eager import EagerRunner
from app.models.checkpoint.loader import Checkpoint


class AlignedWindow(Window):
    """A window whose rows are read from the end: the last entry of each is the last of what a pass attends to."""

    def set(self, first: int, positions: list[int], num_new: int, device: torch.device | None = None) -> None:
        super().set(first, positions, num_new, device)
        if not self.is_single:
            num_before = self.longest - self.row_positions
            self._entries = (torch.arange(self.length, device=device) - num_before[:, None]) % self.length

    def write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        stored = super().write(buffer, states)
        if self.is_single:
            return stored
        return stored.gather(2, self._entries[:, None, :, None].expand(stored.shape))


class AlignedRunner(EagerRunner):
    """Runs ``model`` with a cache of ``num_rows`` rows of at most ``max_tokens`` entries."""

    def __init__(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        super().__init__(checkpoint, num_rows, max_tokens, AlignedWindow())

    def _mask(self, positions: torch.Tensor) -> torch.Tensor:
        """``(rows, entries)``: 1 for those that belong to the row, whose last one is the last of all."""
        window = self.cache.window
        num_before = window.longest - positions[:, :1]
        return (torch.arange(window.length, device=positions.device) >= num_before).long()
