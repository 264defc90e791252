"""Runs a step's plan on a runner: moves in the cache, then the passes. Inference thread only.

Decides nothing but what to do after a failed pass; knows neither sampling nor text.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from app.core.work.jobs import Job
from app.engine.generation.plan import Chunk, ClearRow, CopyRow, Move, Plan, ScheduledStep, SwapRows
from app.engine.guard import Guard
from app.engine.runners.interface import Runner


@dataclass(frozen=True, slots=True)
class StepLogits:
    """What the passes gave; None for what failed.

    ``rows`` is ``(num_rows, num_new, vocab)``; of each chunk ``(1, vocab)``, or ``(len(tokens), vocab)`` where all
    were wanted. Valid until the next step.
    """

    rows: torch.Tensor | None
    chunks: SequenceOf[torch.Tensor | None]


class Executor:
    """Runs plans on ``runner``."""

    def __init__(self, runner: Runner):
        self._runner = runner

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
        if plan.is_mixed and (found := guard.run(decoding + reading, partial(self._mixed, plan))) is not None:
            return StepLogits(*found)
        chunks = [
            guard.run([job], partial(self._prefill, chunk)) for job, chunk in zip(reading, plan.chunks, strict=True)
        ]
        return StepLogits(self._decode(plan, decoding, guard), chunks)

    def _move(self, move: Move, guard: Guard) -> None:
        cache = self._runner.cache
        match move:
            case SwapRows(a, b, num_tokens):
                cache.swap_rows(a, b, num_tokens)
            case CopyRow(source, target, num_tokens):
                cache.copy_row(source, target, num_tokens)
            case ClearRow(row) if guard.poison is None:
                guard.run([], partial(cache.clear_row, row))

    def _mixed(self, plan: Plan) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self._runner.mixed([tokens[0] for tokens in plan.tokens], plan.starts, plan.chunks)

    def _prefill(self, chunk: Chunk) -> torch.Tensor:
        return self._runner.prefill(chunk.row, chunk.tokens, chunk.start, all_logits=chunk.all_logits)

    def _decode(self, plan: Plan, jobs: list[Job], guard: Guard) -> torch.Tensor | None:
        return guard.run(jobs, partial(self._runner.decode, plan.tokens, plan.starts)) if jobs else None
