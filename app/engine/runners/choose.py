"""Which runner makes the passes where nothing was compared yet. Inference thread only."""

from __future__ import annotations

from typing import Literal

from app.engine.runners.bucketed import BucketedRunner
from app.engine.runners.eager import EagerRunner
from app.engine.runners.interface import Runner
from app.engine.runners.mixed import MixedRunner, can_mix
from app.models.checkpoint.loader import Checkpoint

RunnerKind = Literal["eager", "bucketed"]


def make_runner(kind: RunnerKind, checkpoint: Checkpoint, num_rows: int, max_tokens: int) -> Runner:
    """A runner for ``num_rows`` sequences of at most ``max_tokens`` tokens; nothing it gives is checked here."""
    if kind == "bucketed":
        return BucketedRunner(checkpoint, num_rows, max_tokens)
    return (MixedRunner if can_mix(checkpoint) else EagerRunner)(checkpoint, num_rows, max_tokens)
