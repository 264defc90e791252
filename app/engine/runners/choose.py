"""Which runner makes the passes. Inference thread only."""

from __future__ import annotations

from typing import Literal

from app.engine.runners.bucketed import BucketedRunner
from app.engine.runners.compiled import CompiledRunner
from app.engine.runners.eager import EagerRunner
from app.engine.runners.interface import Runner
from app.engine.runners.mixed import MixedRunner, can_mix
from app.engine.runners.native_runner import NativeRunner
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.compiled_step import CompiledStep
from app.models.compiled.native_pass import NativePass

RunnerKind = Literal["eager", "bucketed"]


def make_runner(kind: RunnerKind, checkpoint: Checkpoint, num_rows: int, max_tokens: int) -> Runner:
    """A runner for ``num_rows`` sequences of at most ``max_tokens`` tokens; nothing it gives is checked here."""
    if kind == "bucketed":
        return BucketedRunner(checkpoint, num_rows, max_tokens)
    return (MixedRunner if can_mix(checkpoint) else EagerRunner)(checkpoint, num_rows, max_tokens)


def runner_on(
    step: CompiledStep | NativePass, checkpoint: Checkpoint, num_rows: int, max_tokens: int
) -> CompiledRunner | NativeRunner:
    """The runner that makes its passes by the code of a package."""
    if isinstance(step, NativePass):
        return NativeRunner(step, checkpoint, num_rows, max_tokens)
    return CompiledRunner(step, checkpoint, num_rows, max_tokens)


def is_compiled(runner: Runner) -> bool:
    """Whether it makes passes by the code of a package."""
    return isinstance(runner, CompiledRunner | NativeRunner)
