"""KV cache: one row per sequence, each row written at its own position.

Stands in for transformers' ``DynamicCache`` in a model's forward pass. Sequences
come and go; a forward pass works on a window of neighbouring rows. Buffers grow by
doubling, so a decode step never copies what is already there. Inference thread only; knows
neither jobs nor sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from app.models.checkpoint.transfer import sent_whole

INITIAL_CAPACITY_TOKENS = 256
CPU = torch.device("cpu")


def grown_capacity(capacity: int, needed: int, most: int) -> int:
    """``capacity`` doubled until ``needed`` entries fit; above ``most`` only as far as they take."""
    while capacity < needed:
        capacity *= 2
    return min(capacity, max(most, needed))


class Window:
    """What the next forward pass touches: rows ``first .. first + count``, all layers alike.

    ``positions`` holds, per row, how many entries are valid before the pass; the pass writes its
    ``num_new`` entries behind them and attends to ``length`` entries.
    """

    def __init__(self) -> None:
        self.set(0, [0], 1)

    def set(self, first: int, positions: list[int], num_new: int, device: torch.device | None = None) -> None:
        self.first = first
        self.count = len(positions)
        self.start = positions[0]
        self.longest = max(positions)
        self.length = self.longest + num_new
        self.is_single = self.count == 1
        if not self.is_single:
            self.rows = torch.arange(first, first + self.count, device=device)
            self.row_positions = sent_whole(positions, device or CPU)

    def set_static(self, rows: torch.Tensor, row_positions: torch.Tensor, length: int) -> None:
        """Read rows ``0 .. len(rows)`` up to ``length``; write row i's entry to ``rows[i]`` at ``row_positions[i]``.

        The tensors stay the caller's, and no number here depends on what they hold.
        """
        self.first, self.count, self.length = 0, rows.shape[0], length
        self.start = self.longest = length - 1
        self.is_single = False
        self.rows, self.row_positions = rows, row_positions

    def write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Store ``(count, num_kv_heads, num_new, head_dim)`` states in a layer's buffer; what the pass attends to."""
        if self.is_single:
            row = buffer[self.first : self.first + 1, :, : self.length]
            row[:, :, self.start :].copy_(states)
            return row
        if states.shape[2] == 1:
            buffer[self.rows, :, self.row_positions] = states[:, :, 0]
        else:
            offsets = torch.arange(states.shape[2], device=states.device)
            at = self.row_positions[:, None] + offsets
            buffer[self.rows[:, None], :, at] = states.transpose(1, 2)
        return buffer[self.first : self.first + self.count, :, : self.length]


class KVLayer(CacheLayerMixin):
    """Keys and values of one layer, each ``(num_rows, num_kv_heads, capacity, head_dim)``; a row has ``max_tokens`` at
    most.
    """

    is_croppable = False
    is_sliding = False

    def __init__(self, num_rows: int, max_tokens: int, window: Window):
        super().__init__()
        self.keys: torch.Tensor | None
        self.values: torch.Tensor | None
        self.num_rows = num_rows
        self.max_tokens = max_tokens
        self.window = window

    @property
    def capacity(self) -> int:
        """Entries that fit a row before the buffers grow."""
        return 0 if self.keys is None else self.keys.shape[2]

    @property
    def bytes_per_token(self) -> int:
        """Memory of one entry; 0 before the first pass."""
        buffers = [buffer for buffer in (self.keys, self.values) if buffer is not None]
        return sum(buffer.shape[1] * buffer.shape[3] * buffer.element_size() for buffer in buffers)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        capacity = min(self.max_tokens, INITIAL_CAPACITY_TOKENS)
        self.keys = self._empty(key_states, capacity)
        self.values = self._empty(value_states, capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what the window says where it says; return what the pass attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        needed = min(self.window.length, self.max_tokens)
        if needed > self.capacity:
            self._grow(needed)
        assert self.keys is not None and self.values is not None
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def reserve(self, length: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Buffers with room for ``length`` entries per row; None before the first pass has made any."""
        if self.keys is None or self.values is None:
            return None
        if length > self.capacity:
            self._grow(length)
        return self.keys, self.values

    def swap_rows(self, a: int, b: int, num_tokens: int) -> None:
        """Exchange the first ``num_tokens`` entries of two rows."""
        for buffer in (self.keys, self.values):
            if buffer is not None:
                kept = buffer[a, :, :num_tokens].clone()
                buffer[a, :, :num_tokens] = buffer[b, :, :num_tokens]
                buffer[b, :, :num_tokens] = kept

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first ``num_tokens`` entries of one row over another's."""
        for buffer in (self.keys, self.values):
            if buffer is not None:
                buffer[target, :, :num_tokens] = buffer[source, :, :num_tokens]

    def clear_row(self, row: int) -> None:
        """Make every entry of a row zero: NaN in it would reach whoever has the row next, through entries it masks."""
        for buffer in (self.keys, self.values):
            if buffer is not None:
                buffer[row].zero_()

    def shrink(self, capacity: int) -> None:
        """Keep the first ``capacity`` entries of every row, in buffers of that size."""
        if self.keys is not None and self.values is not None and capacity < self.capacity:
            self.keys = self.keys[:, :, :capacity].clone()
            self.values = self.values[:, :, :capacity].clone()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.longest + query_length, 0

    def get_seq_length(self) -> int:
        return self.window.longest

    def get_max_length(self) -> int:
        return self.max_tokens

    def reset(self) -> None:
        """Give the memory back; the next pass starts with small buffers again."""
        self.keys = self.values = None
        self.is_initialized = False

    def _write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return self.window.write(buffer, states)

    def _grow(self, needed: int) -> None:
        capacity = grown_capacity(self.capacity, needed, self.max_tokens)
        assert self.keys is not None and self.values is not None
        self.keys = self._grown(self.keys, capacity)
        self.values = self._grown(self.values, capacity)

    @staticmethod
    def _grown(old: torch.Tensor, capacity: int) -> torch.Tensor:
        new = old.new_zeros((*old.shape[:2], capacity, old.shape[3]))
        new[:, :, : old.shape[2]] = old
        return new

    def _empty(self, like: torch.Tensor, capacity: int) -> torch.Tensor:
        # Zeros, not garbage: masked entries take part in attention with weight 0, and 0 x NaN is NaN.
        return like.new_zeros((self.num_rows, like.shape[1], capacity, like.shape[3]))


class KVCache(Cache):
    """The ``layers`` of one model, sharing one ``window``: rows of at most ``max_tokens`` positions."""

    def __init__(self, layers: Sequence[KVLayer], num_rows: int, max_tokens: int, window: Window):
        self.window = window
        self.num_rows = num_rows
        self.max_tokens = max_tokens
        self.row_layers = list(layers)
        super().__init__(layers=list(layers))

    def swap_rows(self, a: int, b: int, num_tokens: int) -> None:
        """Exchange the first ``num_tokens`` entries of two rows in every layer."""
        if a != b:
            for layer in self.row_layers:
                layer.swap_rows(a, b, num_tokens)

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first ``num_tokens`` entries of one row over another's in every layer."""
        for layer in self.row_layers:
            layer.copy_row(source, target, num_tokens)

    def clear_row(self, row: int) -> None:
        """Make every entry of a row zero, in every layer."""
        for layer in self.row_layers:
            layer.clear_row(row)

    def load_states(self, source: int, target: int) -> None:
        """Have a row go on from other states; for caches that keep some."""
        raise AssertionError("no layer keeps states")

    def copy_blocks(self, blocks: Sequence[tuple[int, int]]) -> None:
        """Copy entries from block to block, each ``(source, target)``; for caches whose rows are tables of them."""
        raise AssertionError("whole rows have no blocks")

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        """Make every entry of some blocks zero; for the same caches."""
        raise AssertionError("whole rows have no blocks")

    def shrink(self, capacity: int) -> None:
        """Keep the first ``capacity`` entries of every row; gives memory back one layer after the other."""
        for layer in self.row_layers:
            layer.shrink(capacity)

    @property
    def places(self) -> tuple[int, ...]:
        """Where the buffers lie in memory; others once they have grown or shrunk."""
        buffers = [buffer for layer in self.row_layers for buffer in (layer.keys, layer.values)]
        return tuple(0 if buffer is None else buffer.data_ptr() for buffer in buffers)

    @property
    def capacity(self) -> int:
        """Entries that fit a row of the largest layer before buffers grow."""
        return max((layer.capacity for layer in self.row_layers), default=0)

    @property
    def bytes_per_token(self) -> int:
        """Memory of one entry in all layers; known after the first pass."""
        return sum(layer.bytes_per_token for layer in self.row_layers)

    @property
    def max_bytes(self) -> int:
        """Memory that the buffers reach when every row is full; known after the first pass."""
        return self.num_rows * sum(layer.bytes_per_token * layer.max_tokens for layer in self.row_layers)

    @property
    def num_bytes(self) -> int:
        """Memory held by the buffers at present."""
        buffers = [buffer for layer in self.row_layers for buffer in (layer.keys, layer.values)]
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers if buffer is not None)
