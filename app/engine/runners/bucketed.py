"""Decoding in a fixed set of tensor shapes, from input buffers that are made once: what graph capture needs.

A step is padded to a bucket: a power of two of rows, a power of two of entries to attend to. Rows
that pad write their entry to a scratch row behind the others. Prompts, and steps that carry drafts,
have too many shapes to be fixed: the eager runner takes them, on the same cache. On a CPU padding
only costs (docs/performance.md). Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from bisect import bisect_left

import torch

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import INITIAL_CAPACITY_TOKENS, KVCache
from app.engine.kv.reach import WHOLE
from app.engine.runners.eager import EagerRunner
from app.engine.runners.masks import MaskBuffer
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.adapters.adapter_bank import AdapterBank


class Inputs:
    """The numbers of one step, staged on the host and moved to the device in one transfer."""

    def __init__(self, num_rows: int, scratch_row: int, device: torch.device):
        self._staged = torch.zeros((3, num_rows), dtype=torch.long)
        self._view = self._staged.numpy()
        self._scratch_row = scratch_row
        self.on_device = torch.zeros((3, num_rows), dtype=torch.long, device=device)

    def fill(self, tokens: list[int], positions: list[int]) -> None:
        """Rows 0, 1, .. get ``tokens`` at ``positions``; the others feed token 0 to the scratch row."""
        count = len(tokens)
        self._view[0, :count] = tokens
        self._view[1, :count] = positions
        self._view[2, :count] = range(count)
        self._view[:2, count:] = 0
        self._view[2, count:] = self._scratch_row
        self.on_device.copy_(self._staged)


class Bucket:
    """One shape of a step: views of the shared inputs, and the mask over ``length`` entries."""

    def __init__(self, inputs: Inputs, num_rows: int, length: int, dtype: torch.dtype):
        tokens, positions, self.rows = inputs.on_device[:, :num_rows]
        self.row_positions = positions
        self.input_ids, self.positions = tokens[:, None], positions[:, None]
        self.length = length
        self._masks = MaskBuffer(num_rows, 1, length, dtype, positions.device)

    def mask(self) -> torch.Tensor:
        """The mask for the present positions, always in the same memory."""
        return self._masks.write(self.positions)


class BucketedRunner:
    """Runs ``model`` with a cache of ``num_rows`` rows and one scratch row."""

    can_mix = False
    reach = WHOLE
    num_snapshots: int | None = None
    # They do not go with it: the settings say so.
    adapters: AdapterBank | None = None

    def __init__(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        self._model = checkpoint.model
        self._dtype = checkpoint.dtype
        self._eager = EagerRunner(checkpoint, num_rows + 1, max_tokens)
        self._caching = {cache_argument_of(checkpoint.model): self._eager.cache, "use_cache": True}
        self._inputs = Inputs(num_rows, num_rows, checkpoint.device)
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self.batch_sizes = powers_of_two(1, num_rows)
        self.lengths = powers_of_two(min(INITIAL_CAPACITY_TOKENS, max_tokens), max_tokens)

    @property
    def cache(self) -> KVCache:
        return self._eager.cache

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        return self._eager.prefill(row, tokens, start, all_logits=all_logits)

    def decode(self, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        if len(tokens[0]) > 1:
            return self._eager.decode(tokens, starts)
        self._inputs.fill([row[0] for row in tokens], starts)
        return self._run(self._bucket(len(starts), max(starts) + 1))[: len(starts)]

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self._eager.mixed(tokens, starts, chunks)

    def _bucket(self, num_rows: int, length: int) -> Bucket:
        """The smallest shape that holds the step; made when it is first needed."""
        key = smallest(self.batch_sizes, num_rows), smallest(self.lengths, length)
        if key not in self._buckets:
            self._buckets[key] = Bucket(self._inputs, *key, self._dtype)
        return self._buckets[key]

    def _run(self, bucket: Bucket) -> torch.Tensor:
        """One pass; nothing in here depends on the numbers of the step, only on its bucket."""
        mask = bucket.mask()
        self.cache.window.set_static(bucket.rows, bucket.row_positions, bucket.length)
        logits: torch.Tensor = self._model(
            input_ids=bucket.input_ids,
            position_ids=bucket.positions,
            attention_mask=mask,
            logits_to_keep=1,
            **self._caching,
        ).logits
        return logits


def powers_of_two(first: int, last: int) -> list[int]:
    """``first``, twice that, .. below ``last``, and ``last`` itself."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]


def smallest(sizes: list[int], needed: int) -> int:
    """The smallest of ``sizes`` (ascending) that holds ``needed``."""
    return sizes[bisect_left(sizes, needed)]
