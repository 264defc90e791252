"""Layers whose queries see the last entries of a row only: each row is a ring of those and of what one pass adds.

Position p lies at p modulo the ring's size. While a row is shorter than that, the buffers grow as any other layer's.
Inference thread only.
"""

from __future__ import annotations

from typing import Protocol

import torch

from app.engine.kv.cache import KVLayer, Window


class RingWriter(Protocol):
    """A window that knows where entries belong in rings of ``size``."""

    def write_ring(self, buffer: torch.Tensor, states: torch.Tensor, size: int) -> torch.Tensor:
        """Store ``(1, num_kv_heads, num_tokens, head_dim)`` states where they belong; the whole buffer."""
        ...


class RingLayer(KVLayer):
    """Keys and values of one layer in rows of ``size`` entries, which hold the newest ones."""

    def __init__(self, num_rows: int, size: int, window: Window, writer: RingWriter):
        super().__init__(num_rows, size, window)
        self._writer = writer

    def _write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return self._writer.write_ring(buffer, states, self.max_tokens)
