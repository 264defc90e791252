"""Decoding by code that was compiled for the model's shape, where one row decodes alone or a few do together.

Everything else (prompts, more rows, drafts, mixed passes) goes the eager way on the same cache and weights, so a
sequence can change from one to the other at any step. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from typing import Any

import torch

from app.engine.runners.mixed import MixedRunner
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.compiled_step import CompiledStep, KeysValues


class CompiledRunner(MixedRunner):
    """A runner whose rows decode on ``step``, which holds the weights of ``checkpoint``."""

    def __init__(self, step: CompiledStep, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        super().__init__(checkpoint, num_rows, max_tokens)
        self._step = step
        self._embed: Any = checkpoint.model.get_input_embeddings()
        self._rotary: Any = checkpoint.model.base_model.rotary_emb

    def decode(self, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        num_filled = self._step.rows_for(len(starts)) if len(tokens[0]) == 1 else None
        buffers = None if num_filled is None else self._buffers(max(starts) + 1, len(starts))
        if num_filled is None or buffers is None:
            return super().decode(tokens, starts)
        return self._decode_compiled([row[0] for row in tokens], starts, num_filled, buffers)

    def _decode_compiled(
        self, tokens: list[int], starts: list[int], num_filled: int, buffers: list[KeysValues]
    ) -> torch.Tensor:
        """Feed one of ``tokens`` to each of rows 0, 1, ..; ``(num_rows, 1, vocab)``. The last one fills up."""
        num_rows = len(tokens)
        self.cache.window.set(0, starts, 1)
        rows = list(range(num_rows)) + [num_rows - 1] * (num_filled - num_rows)
        positions = [starts[row] for row in rows]
        states = self._embed(torch.tensor([[tokens[row] for row in rows]]))
        cos, sin = self._rotary(states, torch.tensor([positions]))
        return self._step.run(states[0], cos[0], sin[0], positions, rows, buffers)[:num_rows, None]

    def _buffers(self, length: int, num_rows: int) -> list[KeysValues] | None:
        """Keys and values of every layer with room for ``length`` entries; None before the first pass.

        Of row 0 alone where it is alone.
        """
        reserved = [layer.reserve(length) for layer in self.cache.row_layers]
        if any(one is None for one in reserved):
            return None
        pairs = [pair for pair in reserved if pair is not None]
        return pairs if num_rows > 1 else [(keys[:1], values[:1]) for keys, values in pairs]
