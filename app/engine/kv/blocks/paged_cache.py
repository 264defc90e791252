"""KV cache in blocks: no row takes more memory than its entries need, and a prefix lies there once for all rows.

Stands in for ``KVCache`` where a runner reads rows by their tables (``runners/paged``). All memory is taken at once and
stays where it is. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache

from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.blocks.entry_size import EntrySize
from app.engine.kv.cache import KVCache, KVLayer, Window
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.loader import Checkpoint


class BlockWriter(Protocol):
    """A window that knows where the entries of a pass belong."""

    def write_blocks(self, pool: torch.Tensor, states: torch.Tensor) -> None:
        """Store ``(1, num_heads, num_tokens, dim)`` states in ``(num_blocks, block_tokens, num_heads, dim)``."""
        ...


class PagedLayer(KVLayer):
    """Keys and values of one layer, each ``(num_blocks, block_tokens, num_heads, dim)``: a token's heads together."""

    def __init__(self, pages: Pages, size: EntrySize, max_tokens: int, window: Window, writer: BlockWriter, like: Any):
        super().__init__(0, max_tokens, window)
        self._writer, self._size = writer, size
        shape = (pages.num_blocks, pages.block_tokens, size.num_heads)
        # Zeros, not garbage: masked entries take part in attention with weight 0, and 0 x NaN is NaN.
        self.keys = torch.zeros((*shape, size.key_dim), dtype=size.dtype, device=like)
        self.values = torch.zeros((*shape, size.value_dim), dtype=size.dtype, device=like)
        self.is_initialized = True

    @property
    def capacity(self) -> int:
        """There is nothing that grows."""
        return 0

    @property
    def bytes_per_token(self) -> int:
        return self._size.num_bytes

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what the window says where it says; all blocks."""
        assert self.keys is not None and self.values is not None
        self._writer.write_blocks(self.keys, key_states)
        self._writer.write_blocks(self.values, value_states)
        return self.keys, self.values

    def copy_blocks(self, blocks: Sequence[tuple[int, int]]) -> None:
        for pool in (self.keys, self.values):
            assert pool is not None
            for source, target in blocks:
                pool[target] = pool[source]

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        for pool in (self.keys, self.values):
            assert pool is not None
            for block in blocks:
                pool[block].zero_()


class PagedCache(KVCache):
    """The layers of one model over the same tables of blocks, ``pages``."""

    def __init__(self, pages: Pages, layers: Sequence[PagedLayer], num_rows: int, max_tokens: int, window: Window):
        super().__init__(layers, num_rows, max_tokens, window)
        self.pages = pages
        self._paged_layers = layers

    def copy_blocks(self, blocks: Sequence[tuple[int, int]]) -> None:
        for layer in self._paged_layers:
            layer.copy_blocks(blocks)

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        for layer in self._paged_layers:
            layer.clear_blocks(blocks)

    def hold(self, row: int, start: int, end: int) -> None:
        """Make room for entries ``start`` .. ``end`` of a row, which are to be written next."""
        if copies := self.pages.hold(row, start, end):
            self.copy_blocks(copies)

    @property
    def max_bytes(self) -> int:
        """All memory is taken already."""
        return self.num_bytes


@torch.inference_mode()
def entry_sizes(checkpoint: Checkpoint) -> list[EntrySize]:
    """What each layer of the model keeps of a token, told by its own cache after a pass of one."""
    cache = DynamicCache(config=checkpoint.model.config.get_text_config())
    ids = torch.tensor([[1]], device=checkpoint.device)
    checkpoint.model(input_ids=ids, use_cache=True, **{cache_argument_of(checkpoint.model): cache})
    return [size_of(layer) for layer in cache.layers]


def size_of(layer: Any) -> EntrySize:
    """Of a layer of transformers' own cache; those that were given nothing keep nothing."""
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is None or values is None or keys.ndim != 4:
        return EntrySize(0, 0, 0, torch.float32)
    return EntrySize(keys.shape[1], keys.shape[3], values.shape[3], keys.dtype)
