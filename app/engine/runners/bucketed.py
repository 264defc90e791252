"""Decoding in a fixed set of tensor shapes, from input buffers that are made once: what graph capture needs.

A step is padded to a bucket: a power of two of rows, a power of two of entries to attend to. Rows
that pad write their entry to a scratch row behind the others. Prompts, and steps that carry drafts,
have too many shapes to be fixed: another runner takes them, on the same cache. With ``graphs`` a bucket is recorded
and replayed; without, padding only costs (docs/performance.md). Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

import torch

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import INITIAL_CAPACITY_TOKENS, KVCache
from app.engine.kv.reach import WHOLE
from app.engine.runners.eager import EagerRunner
from app.engine.runners.graphs.decode_graphs import DecodeGraphs
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.graphs.fixed_shapes import powers_of_two, send_with_tokens, smallest
from app.engine.runners.graphs.recorder import FixedPass
from app.engine.runners.mixed import MixedRunner, can_mix
from app.engine.runners.placing.masks import MaskBuffer
from app.engine.runners.placing.positions import Positions
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import Staged
from app.models.weights.adapters.adapter_bank import AdapterBank


class Inputs:
    """The numbers of one step, on their way to the device and there."""

    def __init__(self, num_rows: int, scratch_row: int, device: torch.device):
        self._staged = Staged((3, num_rows), torch.long, device)
        self._scratch_row = scratch_row

    @property
    def on_device(self) -> torch.Tensor:
        """Tokens, positions and rows, ``(3, num_rows)``, always in the same memory."""
        return self._staged.on_device

    def fill(self, tokens: Fed, positions: list[int]) -> None:
        """Rows 0, 1, .. get one of ``tokens`` each at ``positions``; the others feed token 0 to the scratch row."""
        count = len(positions)
        view = self._staged.on_host
        view[:2] = 0
        view[1, :count] = positions
        view[2, :count] = range(count)
        view[2, count:] = self._scratch_row
        send_with_tokens(self._staged, tokens, count)


class Bucket:
    """One shape of a step: views of the shared inputs, and the mask over ``length`` entries."""

    def __init__(self, inputs: Inputs, num_rows: int, length: int, dtype: torch.dtype):
        tokens, positions, self.rows = inputs.on_device[:, :num_rows]
        self.row_positions = positions
        self.input_ids, self.positions = tokens[:, None], positions[:, None]
        self.num_rows, self.length = num_rows, length
        self._masks = MaskBuffer(num_rows, 1, length, dtype, positions.device)

    def mask(self) -> torch.Tensor:
        """The mask for the present positions, always in the same memory."""
        return self._masks.write(self.positions)


class BucketedRunner:
    """Runs ``model`` with a cache of ``num_rows`` rows and one scratch row."""

    reach = WHOLE
    num_snapshots: int | None = None
    pages: None = None
    left_out: tuple[str, ...] = ()
    adapters: AdapterBank | None = None

    def __init__(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int, graphs: DecodeGraphs | None = None):
        self._model = checkpoint.model
        self._positions = Positions(checkpoint.model)
        self._dtype = checkpoint.dtype
        self._others = (MixedRunner if can_mix(checkpoint) else EagerRunner)(checkpoint, num_rows + 1, max_tokens)
        self.can_mix = self._others.can_mix
        self.graphs = graphs
        self._caching = {cache_argument_of(checkpoint.model): self._others.cache, "use_cache": True}
        self._inputs = Inputs(num_rows, num_rows, checkpoint.device)
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self.batch_sizes = powers_of_two(1, num_rows)
        self.lengths = powers_of_two(min(INITIAL_CAPACITY_TOKENS, max_tokens), max_tokens)

    @property
    def cache(self) -> KVCache:
        return self._others.cache

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        return self._others.prefill(row, tokens, start, all_logits=all_logits)

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        if len(tokens[0]) > 1:
            return self._others.decode(tokens, starts)
        bucket = self._bucket(len(starts), max(starts) + 1)
        is_adapted = self.adapters is not None and self.adapters.pin(bucket.num_rows)
        one = FixedPass(
            (bucket.num_rows, bucket.length, is_adapted),
            lambda: self._inputs.fill(tokens, starts),
            lambda: self._inputs.fill([], []),
            lambda: self._run(bucket),
        )
        is_there = [layer.reserve(bucket.length) is not None for layer in self.cache.row_layers]
        if self.graphs is not None and all(is_there):
            return self.graphs.run(one, self._places())[: len(starts)]
        one.fill()
        return one.run()[: len(starts)]

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self._others.mixed(tokens, starts, chunks)

    def _places(self) -> tuple[int, ...]:
        """Where everything lies that steps read or write, and that may move."""
        return (0 if self.adapters is None else self.adapters.num_stacked, *self.cache.places)

    def _bucket(self, num_rows: int, length: int) -> Bucket:
        """The smallest shape that holds the step; made when it is first needed."""
        key = smallest(self.batch_sizes, num_rows), smallest(self.lengths, length)
        if key not in self._buckets:
            self._buckets[key] = Bucket(self._inputs, *key, self._dtype)
        return self._buckets[key]

    def _run(self, bucket: Bucket) -> torch.Tensor:
        """One pass; nothing in here depends on the numbers of the step, only on its bucket."""
        if self.adapters is not None:
            self.adapters.begin_again()
        mask = bucket.mask()
        self.cache.window.set_static(bucket.rows, bucket.row_positions, bucket.length)
        with self._positions.told(bucket.positions) as placed:
            logits: torch.Tensor = self._model(
                input_ids=bucket.input_ids, attention_mask=mask, logits_to_keep=1, **placed, **self._caching
            ).logits
        return logits
