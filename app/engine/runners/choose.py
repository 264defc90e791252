"""The forward passes that the scheduler asks for, and which runner makes them.

Every runner writes the same entries into the same kind of cache, so that rows can be swapped,
copied and reused whoever ran them. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from app.engine.kv.cache import KVCache
from app.engine.runners.bucketed import BucketedRunner
from app.engine.runners.eager import EagerRunner
from app.engine.runners.mixed import MixedRunner, can_mix
from app.models.checkpoint.loader import Checkpoint

RunnerKind = Literal["eager", "bucketed"]


class Runner(Protocol):
    """Rows 0, 1, .. of ``cache`` are those that decode together; no pass changes the entries of another row."""

    @property
    def cache(self) -> KVCache: ...

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        """Feed ``tokens`` at positions ``start``.. of ``row``.

        Logits ``(1, vocab)`` behind the last token, or ``(len(tokens), vocab)`` behind each.
        """
        ...

    def decode(self, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        """Feed as many tokens to each of rows 0, 1, ..; logits ``(num_rows, num_new, vocab)`` behind each.

        They are valid until the next pass.
        """
        ...


def make_runner(kind: RunnerKind, checkpoint: Checkpoint, num_rows: int, max_tokens: int) -> Runner:
    """A runner for ``num_rows`` sequences of at most ``max_tokens`` tokens; nothing it gives is checked here."""
    if kind == "bucketed":
        return BucketedRunner(checkpoint, num_rows, max_tokens)
    return (MixedRunner if can_mix(checkpoint) else EagerRunner)(checkpoint, num_rows, max_tokens)
