"""Passes by the model's compiled C++ where that is faster: lone rows, many, prompts and both together.

What it is no faster for goes the eager way on the same cache and weights, so a sequence can change from one to the
other at any step. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

import torch

from app.engine.generation.plan import Chunk
from app.engine.runners.mixed import MixedRunner
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.native_pass import NativePass, Tokens


class NativeRunner(MixedRunner):
    """A runner whose passes are made by ``native``, which has the weights of ``checkpoint``."""

    def __init__(self, native: NativePass, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        super().__init__(checkpoint, num_rows, max_tokens)
        self._native = native

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        wanted = range(len(tokens)) if all_logits else [len(tokens) - 1]
        found = self._run(Tokens(tokens, [(row, start, len(tokens))], list(wanted)))
        return super().prefill(row, tokens, start, all_logits=all_logits) if found is None else found

    def decode(self, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        num_rows, num_new = len(tokens), len(tokens[0])
        pieces = [(row, start, num_new) for row, start in enumerate(starts)]
        found = self._run(Tokens([token for row in tokens for token in row], pieces, list(range(num_rows * num_new))))
        return super().decode(tokens, starts) if found is None else found.view(num_rows, num_new, -1)

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        ids, wanted = list(tokens), list(range(len(tokens)))
        pieces = [(row, start, 1) for row, start in enumerate(starts)]
        for chunk in chunks:
            pieces.append((chunk.row, chunk.start, len(chunk.tokens)))
            first = len(ids)
            ids += chunk.tokens
            wanted += range(first if chunk.all_logits else len(ids) - 1, len(ids))
        found = self._run(Tokens(ids, pieces, wanted))
        if found is None:
            return super().mixed(tokens, starts, chunks)
        rows, *rest = torch.split(found, [len(starts), *(len(c.tokens) if c.all_logits else 1 for c in chunks)])
        return rows[:, None], rest

    def _run(self, tokens: Tokens) -> torch.Tensor | None:
        """Logits; None where the eager way is to be gone: for so many tokens, or before the first pass."""
        if not self._native.serves(len(tokens.ids)):
            return None
        buffers = [layer.reserve(tokens.longest) for layer in self.cache.row_layers]
        found = [pair for pair in buffers if pair is not None]
        return self._native.run(tokens, found) if len(found) == len(buffers) else None
