"""What the next step does: which jobs start, which prompts are read how far, which rows decode.

The only place where that is decided. It knows no torch and no model: it makes a plan, is told what came of it, and
makes the next one. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from app.core.errors import RequestError
from app.core.work.jobs import Job
from app.engine.generation.drafts.draft_policy import DraftPolicy
from app.engine.generation.plan import AnySequence, Chunk, Plan, ScheduledStep
from app.engine.generation.prefill_budget import PrefillBudget
from app.engine.generation.shared_step import SharedStep
from app.engine.generation.waiting import WaitingJobs
from app.engine.kv.reach import WHOLE, Reach
from app.engine.kv.row_layout import RowLayout
from app.engine.kv.rows import RowTable


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the scheduler may plan. ``can_mix``: one pass may read prompts and decode; ``has_drafts``: ask for them,
    with ``adapts_drafts`` only while they pay.

    ``chunk_tokens`` is the most that a step reads of prompts, ``context_tokens`` the most that a row holds, ``reach``
    how far back in a row a new sequence may go on. ``num_snapshots``: so many slots keep states of rows; None where
    rows have none.
    """

    max_running: int
    chunk_tokens: int
    context_tokens: int
    reuse_prefix: bool = True
    can_mix: bool = False
    has_drafts: bool = False
    reach: Reach = WHOLE
    adapts_drafts: bool = False
    num_snapshots: int | None = None


class Scheduler(Generic[AnySequence]):
    """Jobs wait for a row, are read in chunks and then decode together, until they are released.

    ``start`` makes the sequence of a job that leaves the queue; None where it failed, and the job with it. ``layout``
    is what rows are in the cache's memory.
    """

    def __init__(self, limits: Limits, start: Callable[[Job], AnySequence | None], layout: RowLayout | None = None):
        self._limits = limits
        self._start = start
        self._waiting = WaitingJobs[Job]()
        self._budget = PrefillBudget(limits.chunk_tokens)
        self._shared = SharedStep(limits.chunk_tokens)
        self._drafting = DraftPolicy() if limits.adapts_drafts else None
        self.rows = RowTable[AnySequence](
            limits.max_running, limits.reuse_prefix, limits.reach, limits.num_snapshots, layout
        )

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0 or self.rows.num_running > 0 or self.rows.num_prefilling > 0

    def add(self, job: Job) -> None:
        """Queue ``job``, first come first served."""
        self._waiting.add(job)

    def schedule(self, now_s: float, *, is_shared: bool = False) -> ScheduledStep[AnySequence]:
        """End what must not go on at ``now_s``, admit what there is room for, and plan the next step.

        ``is_shared``: other models wait for the step, so what it reads of prompts is bounded in time.
        """
        self._sweep(now_s)
        self._admit()
        running = self.rows.running
        reading, chunks = self._chunks(is_shared)
        drafts = self._drafts(running, reads=bool(chunks))
        is_mixed = self._limits.can_mix and bool(chunks) and len(running) + len(chunks) > 1 and not any(drafts)
        tokens, starts = self._fed(running, drafts), [sequence.num_cached for sequence in running]
        return ScheduledStep(Plan(self.rows.take_moves(), chunks, tokens, starts, is_mixed), running, drafts, reading)

    def start_running(self, sequence: AnySequence) -> None:
        """The whole prompt of ``sequence`` is in the cache: it decodes from the next step on."""
        self.rows.start_running(sequence)

    def release(self, sequence: AnySequence, *, is_valid: bool = True) -> None:
        """``sequence`` has ended; its row is cleared where its entries may be wrong."""
        self.rows.release(sequence, is_valid=is_valid)

    def observe(self, step: ScheduledStep[AnySequence], took_s: float) -> None:
        """``step`` took so long: the next one reads what running streams can bear, and guesses where that pays."""
        plan = step.plan
        if self._drafting is not None and plan.starts and not plan.chunks:
            self._observe_drafts(self._drafting, step, took_s)
        self._budget.observe(len(plan.starts), plan.num_prompt_tokens, took_s)
        if plan.chunks:
            self._shared.observe(plan.num_prompt_tokens, took_s)

    def is_steady(self, now_s: float) -> bool:
        """Whether the next step is one of the same rows alone: nothing is read, and nobody who waits could start."""
        self._waiting.sweep(now_s)
        may_start = len(self._waiting) > 0 and self.rows.place_for(self._waiting.first) is not None
        return not self.rows.num_prefilling and not may_start

    def observe_rows(self, num_running: int, took_s: float) -> None:
        """A step of so many rows alone, which was not planned here, took so long."""
        self._budget.observe(num_running, 0, took_s)

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        self._waiting.fail_all(error)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self._waiting.fail_all(error)
        for sequence in self.rows.active:
            self._end(sequence, error)

    def _sweep(self, now_s: float) -> None:
        """End what was cancelled or is over its deadline, waiting or active."""
        self._waiting.sweep(now_s)
        for sequence in self.rows.active:
            if (cause := sequence.job.stop_cause(now_s)) is not None:
                self._end(sequence, cause)

    def _end(self, sequence: AnySequence, error: RequestError) -> None:
        sequence.fail(error)
        self.rows.release(sequence)

    def _admit(self) -> None:
        while len(self._waiting) > 0 and (place := self.rows.place_for(self._waiting.first)) is not None:
            sequence = self._start(self._waiting.start_next())
            if sequence is not None:
                self.rows.take(sequence, place)

    def _chunks(self, is_shared: bool) -> tuple[list[AnySequence], list[Chunk]]:
        """A bounded number of prompt tokens, first come first served, so that running sequences do not stall."""
        budget = self._budget.tokens(self.rows.num_running)
        budget = min(budget, self._shared.tokens) if is_shared else budget
        reading, chunks = [], []
        for sequence in self.rows.prefilling:
            if budget <= 0:
                break
            start = sequence.num_cached
            tokens = sequence.tokens[start : start + budget]
            budget -= len(tokens)
            reading.append(sequence)
            row, snapshots = self.rows.reading(sequence, start + len(tokens))
            chunks.append(Chunk(row, tokens, start, sequence.is_scored, snapshots))
        return reading, chunks

    def _drafts(self, running: list[AnySequence], *, reads: bool) -> list[list[int]]:
        """Proposed next tokens of each; no pass may write behind the context.

        ``reads``: the step has prompts to read, which then go with the rows in one pass.
        """
        none: list[list[int]] = [[] for _ in running]
        if not self._limits.has_drafts or not running or (reads and self._drafting is not None):
            return none
        most = self._limits.context_tokens - 1 - max(sequence.num_cached for sequence in running)
        drafts = [sequence.draft(most) for sequence in running]
        if self._drafting is None or not any(drafts):
            return drafts
        expected = sum(one.draft_rate * len(draft) for one, draft in zip(running, drafts, strict=True))
        return drafts if self._drafting.is_worth(len(running), 1 + max(map(len, drafts)), expected) else none

    @staticmethod
    def _observe_drafts(policy: DraftPolicy, step: ScheduledStep[AnySequence], took_s: float) -> None:
        num_right = 0
        for sequence, draft, start in zip(step.running, step.drafts, step.plan.starts, strict=True):
            # Behind what it was fed there is one more entry for each guess that was right.
            right = min(max(sequence.num_cached - start - 1, 0), len(draft))
            sequence.note_draft(len(draft), right)
            num_right += right
        policy.observe(len(step.running), len(step.plan.tokens[0]), num_right, took_s)

    @staticmethod
    def _fed(running: list[AnySequence], drafts: list[list[int]]) -> list[list[int]]:
        """What each row is fed: the last token, its draft, and zeros, so that all are as long."""
        longest = max(map(len, drafts), default=0)
        return [
            [sequence.tokens[-1], *draft, *[0] * (longest - len(draft))]
            for sequence, draft in zip(running, drafts, strict=True)
        ]
