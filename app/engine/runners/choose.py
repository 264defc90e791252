"""Which runner makes the passes where nothing was compared yet. Inference thread only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from app.core.settings import Settings
from app.engine.runners.bucketed import BucketedRunner
from app.engine.runners.eager import EagerRunner
from app.engine.runners.graphs.compiled_passes import MOST_S, CompiledPasses
from app.engine.runners.graphs.decode_graphs import DecodeGraphs
from app.engine.runners.graphs.op_recorder import OpRecorder
from app.engine.runners.graphs.recorder import CudaRecorder, Recorder
from app.engine.runners.interface import Runner
from app.engine.runners.mixed import MixedRunner, can_mix
from app.engine.runners.paged.gathered_ways import GatheredHeadsWay, GatheredWay
from app.engine.runners.paged.paged_runner import PagedRunner
from app.engine.runners.paged.paged_sizes import BLOCK_TOKENS, num_blocks_within
from app.engine.runners.paged.query_rows import QueryWay
from app.models.checkpoint.loader import Checkpoint

RunnerKind = Literal["eager", "bucketed", "graphs", "paged"]
# Of what is free, where nobody says.
MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Compiling:
    """``make`` gives a model whose passes are compiled at the first call of each shape; all may take ``most_s``."""

    make: Callable[[Any], Callable[..., Any]]
    most_s: float


def make_runner(
    kind: RunnerKind, checkpoint: Checkpoint, num_rows: int, max_tokens: int, compiling: Compiling | None = None
) -> Runner:
    """A runner for ``num_rows`` sequences of at most ``max_tokens`` tokens; nothing it gives is checked here."""
    match kind:
        case "bucketed":
            return BucketedRunner(checkpoint, num_rows, max_tokens)
        case "graphs":
            return graph_runner(checkpoint, num_rows, max_tokens)
        case "paged":
            return paged_runner(checkpoint, num_rows, max_tokens, compiling=compiling)
    return (MixedRunner if can_mix(checkpoint) else EagerRunner)(checkpoint, num_rows, max_tokens)


def graph_runner(checkpoint: Checkpoint, num_rows: int, max_tokens: int) -> BucketedRunner:
    """Steps in fixed shapes that are recorded: as graphs on a GPU."""
    return BucketedRunner(checkpoint, num_rows, max_tokens, DecodeGraphs(make_recorder(checkpoint.device)))


def paged_runner(
    checkpoint: Checkpoint,
    num_rows: int,
    max_tokens: int,
    memory_share: float = MEMORY_SHARE,
    compiling: Compiling | None = None,
) -> PagedRunner:
    """The same on a cache in blocks, which takes at most ``memory_share`` of what is free."""
    block_tokens = BLOCK_TOKENS[checkpoint.device.type]
    passes = None if compiling is None else CompiledPasses(compiling.most_s)
    refine = None if passes is None else passes.refine
    runner = PagedRunner(
        checkpoint,
        num_rows,
        max_tokens,
        ways=query_ways(checkpoint.device, num_rows),
        num_blocks=num_blocks_within(checkpoint, num_rows, max_tokens, block_tokens, memory_share),
        block_tokens=block_tokens,
        graphs=DecodeGraphs(make_recorder(checkpoint.device), refine=refine),
        compiled=None if compiling is None else compiling.make(checkpoint.model),
    )
    if passes is not None:
        runner.compile_shapes(passes)
    return runner


def make_recorder(device: torch.device) -> Recorder:
    """Graphs on a GPU; elsewhere what stands in for them."""
    return CudaRecorder(device) if device.type == "cuda" else OpRecorder()


def query_ways(device: torch.device, num_rows: int) -> list[QueryWay]:
    """The ways in which rows may attend on ``device``."""
    everywhere: list[QueryWay] = [GatheredWay(), GatheredHeadsWay()]
    if device.type != "cuda":
        return everywhere
    # They bring torch's compiler along, which only a GPU wants.
    from app.engine.runners.paged.flex_way import FlexWay
    from app.engine.runners.paged.varlen_way import VarlenWay

    return [VarlenWay(), FlexWay(num_rows), *everywhere]


def compiling_of(settings: Settings, device: torch.device) -> Compiling | None:
    """How decoding steps are compiled; None without a GPU, and for models that adapters change."""
    if device.type != "cuda" or settings.compile == "never" or settings.adapters is not None:
        return None
    most_s = settings.load_timeout_s / 2 if settings.compile == "always" else MOST_S
    return Compiling(partial(torch.compile, dynamic=False), most_s)


def kinds_of(settings: Settings, device: torch.device) -> tuple[RunnerKind, ...]:
    """The kinds that ``settings`` mean on ``device``, those to be tried first in front.

    Not every model's rows can lie in blocks.
    """
    wanted = settings.decode_runner
    if wanted == "auto":
        wanted = "paged" if device.type == "cuda" else "eager"
    return ("paged", "graphs") if wanted == "paged" else (wanted,)
