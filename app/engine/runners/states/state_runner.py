"""Passes over models with layers that keep states of a convolution or a recurrence. Inference thread only."""

from __future__ import annotations

import torch

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import KVCache, Window
from app.engine.kv.state_cache import StateCache
from app.engine.runners.states.state_hosts import find_hosts
from app.engine.runners.states.state_passes import StatePasses
from app.engine.runners.states.whole_passes import whole_passes
from app.engine.runners.windowed import RingWindow, WindowedRunner
from app.models.checkpoint.loader import Checkpoint


class StateRunner(WindowedRunner):
    """Runs a model with layers that keep states, of which ``num_snapshots`` are kept beside those of the rows."""

    def __init__(
        self, checkpoint: Checkpoint, num_rows: int, max_tokens: int, *, most_new: int, num_snapshots: int
    ) -> None:
        self.num_snapshots: int | None = num_snapshots
        self._num_slots = num_snapshots
        self._hosts = find_hosts(checkpoint)
        self._wholes = whole_passes(checkpoint, self._hosts)
        super().__init__(checkpoint, num_rows, max_tokens, most_new=most_new)

    def _make_cache(self, num_rows: int, max_tokens: int, window: Window) -> KVCache:
        assert isinstance(window, RingWindow)
        layers = super()._make_cache(num_rows, max_tokens, window).row_layers
        numbers = {at: kind.num_states for at, kind in enumerate(window.kinds) if kind.num_states}
        cache = StateCache(layers, num_rows, max_tokens, window, num_states=numbers, num_snapshots=self._num_slots)
        self._passes = StatePasses(cache, self._hosts, self._wholes)
        return cache

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Feed one of ``tokens`` to each of rows 0, 1, .. at ``starts``, and the chunks (at least one) to their rows.

        Logits ``(num_rows, 1, vocab)`` of the rows, and per chunk what ``prefill`` gives.
        """
        with self._passes.of(len(starts), chunks):
            return super().mixed(tokens, starts, chunks)
