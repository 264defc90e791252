"""Runs a step's plan on a runner: moves in the cache, then the passes. Inference thread only.

Decides nothing but what to do after a failed pass; knows neither sampling nor text.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from app.core.work.jobs import Job
from app.engine.generation.plan import (
    Chunk,
    ClearBlocks,
    ClearRow,
    CopyBlocks,
    CopyRow,
    LoadStates,
    Move,
    Plan,
    ScheduledStep,
    SwapRows,
)
from app.engine.guard import Guard
from app.engine.kv.cache import KVCache
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.interface import Runner
from app.models.weights.adapters.adapter_bank import AdapterBank


@dataclass(frozen=True, slots=True)
class StepLogits:
    """What the passes gave; None for what failed.

    ``rows`` is ``(num_rows, num_new, vocab)``; of each chunk ``(1, vocab)``, or ``(len(tokens), vocab)`` where all
    were wanted. Valid until the next step.
    """

    rows: torch.Tensor | None
    chunks: SequenceOf[torch.Tensor | None]


class Executor:
    """Runs plans on ``runner``; ``adapters`` change the model for the jobs that have one."""

    def __init__(self, runner: Runner, adapters: AdapterBank | None = None):
        self._runner = runner
        self._adapters = adapters
        runner.adapters = adapters

    def run(self, step: ScheduledStep[Any], guard: Guard) -> StepLogits:
        """Make the moves and the passes of ``step``; a pass that raises fails what it was for, by ``guard``.

        Where a mixed pass fails, separate ones follow: only the sequence that it fails for is to fail.
        """
        plan, decoding, reading = (
            step.plan,
            *([sequence.job for sequence in some] for some in (step.running, step.reading)),
        )
        for move in plan.moves:
            self._move(move, guard)
        mixed = partial(self._mixed, plan, decoding, reading)
        if plan.is_mixed and (found := guard.run(decoding + reading, mixed)) is not None:
            return StepLogits(*found)
        chunks = [
            guard.run([job], partial(self._prefill, chunk, job))
            for job, chunk in zip(reading, plan.chunks, strict=True)
        ]
        return StepLogits(self._decode(plan, decoding, guard), chunks)

    def run_behind(self, jobs: list[Job], tokens: Fed, starts: list[int], guard: Guard) -> torch.Tensor | None:
        """Logits ``(num_rows, 1, vocab)`` of rows 0, 1, .. behind ``tokens`` that nobody has read, one for each."""

        def decode() -> torch.Tensor:
            with self._adapted(jobs, [1] * len(jobs)):
                return self._runner.decode(tokens, starts)

        return guard.run(jobs, decode)

    def _move(self, move: Move, guard: Guard) -> None:
        make = partial(make_move, self._runner.cache, move)
        if not isinstance(move, ClearRow | ClearBlocks):
            make()
        elif guard.poison is None:
            guard.run([], make)

    def _mixed(self, plan: Plan, decoding: list[Job], reading: list[Job]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        counts = [1] * len(decoding) + [len(chunk.tokens) for chunk in plan.chunks]
        with self._adapted(decoding + reading, counts):
            return self._runner.mixed([tokens[0] for tokens in plan.tokens], plan.starts, plan.chunks)

    def _prefill(self, chunk: Chunk, job: Job) -> torch.Tensor:
        with self._adapted([job], [len(chunk.tokens)]):
            if chunk.snapshots:
                return self._runner.mixed([], [], [chunk])[1][0]
            return self._runner.prefill(chunk.row, chunk.tokens, chunk.start, all_logits=chunk.all_logits)

    def _decode(self, plan: Plan, jobs: list[Job], guard: Guard) -> torch.Tensor | None:
        return guard.run(jobs, partial(self._decode_rows, plan, jobs)) if jobs else None

    def _decode_rows(self, plan: Plan, jobs: list[Job]) -> torch.Tensor:
        with self._adapted(jobs, [len(tokens) for tokens in plan.tokens]):
            return self._runner.decode(plan.tokens, plan.starts)

    def _adapted(self, jobs: list[Job], counts: list[int]) -> AbstractContextManager[None]:
        """Within it, passes hold so many tokens of each of ``jobs``, in their order."""
        if self._adapters is None:
            return nullcontext()
        return self._adapters.rows([(job.adapter, count) for job, count in zip(jobs, counts, strict=True)])


def make_move(cache: KVCache, move: Move) -> None:
    """Do in the cache what the layout of its rows wants."""
    match move:
        case SwapRows(a, b, num_tokens):
            cache.swap_rows(a, b, num_tokens)
        case CopyRow(source, target, num_tokens):
            cache.copy_row(source, target, num_tokens)
        case ClearRow(row):
            cache.clear_row(row)
        case LoadStates(source, target):
            cache.load_states(source, target)
        case CopyBlocks(pairs):
            cache.copy_blocks(pairs)
        case ClearBlocks(blocks):
            cache.clear_blocks(blocks)
