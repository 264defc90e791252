"""Decoding by code that was compiled for the model's shape, where one row decodes alone.

Everything else (prompts, several rows, drafts, mixed passes) goes the eager way on the same cache and weights, so a
sequence can change from one to the other at any step. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from typing import Any

import torch

from app.engine.runners.mixed import MixedRunner
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.compiled_step import CompiledStep, KeysValues


class CompiledRunner(MixedRunner):
    """A runner whose lone rows decode on ``step``, which holds the weights of ``checkpoint``."""

    def __init__(self, step: CompiledStep, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        super().__init__(checkpoint, num_rows, max_tokens)
        self._step = step
        self._embed: Any = checkpoint.model.get_input_embeddings()
        self._rotary: Any = checkpoint.model.base_model.rotary_emb

    def take_over(self, other: MixedRunner) -> None:
        """Go on with the cache of ``other``, which makes no more passes."""
        self.cache, self._window, self._caching = other.cache, other._window, other._caching

    def decode(self, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        buffers = self._buffers(starts[0] + 1) if len(starts) == len(tokens[0]) == 1 else None
        if buffers is None:
            return super().decode(tokens, starts)
        return self._decode_alone(tokens[0][0], starts[0], buffers)

    def _decode_alone(self, token: int, start: int, buffers: list[KeysValues]) -> torch.Tensor:
        """Feed one token to row 0; ``(1, 1, vocab)``."""
        self.cache.window.set(0, [start], 1)
        states = self._embed(torch.tensor([[token]]))
        cos, sin = self._rotary(states, torch.tensor([[start]]))
        return self._step.run(states[0], cos[0], sin[0], start, buffers)[None]

    def _buffers(self, length: int) -> list[KeysValues] | None:
        """Keys and values of row 0 in every layer, with room for ``length`` entries; None before the first pass."""
        reserved = [layer.reserve(length) for layer in self.cache.row_layers]
        if any(one is None for one in reserved):
            return None
        return [(pair[0][:1], pair[1][:1]) for pair in reserved if pair is not None]
