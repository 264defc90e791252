"""Continuous batching: sequences join, are prefilled in chunks, decode together, leave.

One ``step`` schedules, runs the plan and accepts what came of it. Inference thread only; knows neither HTTP nor
loading.
"""

from __future__ import annotations

import time
from functools import partial

import torch

from app.core.errors import InternalError, RequestError
from app.core.work.job_events import TokenLogprob
from app.core.work.jobs import Job
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.drafts.prompt_lookup import PromptLookup
from app.engine.generation.executor import Executor, StepLogits
from app.engine.generation.plan import ScheduledStep
from app.engine.generation.scheduler import Limits, Scheduler
from app.engine.generation.sequence import Sequence
from app.engine.guard import Guard
from app.engine.kv.blocks.block_rows import nobodys_rows
from app.engine.kv.cache import KVCache
from app.engine.kv.reach import WHOLE
from app.engine.kv.trimming import Trimmer
from app.engine.runners.interface import Runner
from app.engine.sampling.pending_tokens import UNSOUND, Pending
from app.engine.sampling.sampler import choose, draw_next
from app.engine.text.text_output import Pace
from app.models.text_model import TextModel
from app.models.weights.adapters.adapter_bank import AdapterBank


class BatchedEngine:
    """Decodes up to ``options.max_running`` sequences together on one model; ``runner`` makes its passes."""

    def __init__(self, text_model: TextModel, options: BatchOptions, runner: Runner):
        self._text_model = text_model
        self._options = options
        self.guard = Guard(text_model.checkpoint.device)
        self.runner = runner
        layout = nobodys_rows(runner.pages, options.num_draft_tokens, runner.cache.max_tokens)
        self._scheduler = Scheduler(limits_of(options, text_model, runner), self._start, layout)
        self._executor = Executor(runner)
        self._adapters: AdapterBank | None = None
        self._pending: Pending[Sequence] | None = None
        # A pass too many is as if it had not been where rows keep every entry, and neither rings nor states.
        self._goes_ahead = options.overlap_text and runner.num_snapshots is None and runner.reach == WHOLE
        self._trimmer = Trimmer(runner.cache, self._scheduler.rows, self.guard.give_back)
        self._pace = Pace()

    @property
    def cache(self) -> KVCache:
        """The KV cache of all its sequences."""
        return self.runner.cache

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def add(self, job: Job) -> None:
        """Queue ``job``, first come first served."""
        self._scheduler.add(job)

    @torch.inference_mode()
    def step(self, *, is_shared: bool = False) -> None:
        """Bring every sequence forward: by a chunk of its prompt, or by a token (and what its draft saved).

        ``is_shared``: other models wait for this step, so what it reads of prompts is bounded in time. With
        ``overlap_text`` a step's tokens may be read in the next one, behind the launch of its pass.
        """
        started_s = time.perf_counter()
        if self._pending is not None:
            num_running = len(self._pending.sequences)
            self._go_on_behind(self._pending)
            if self._pending is not None:
                self._scheduler.observe_rows(num_running, time.perf_counter() - started_s)
            if self._pending is not None or not self.has_work:
                return
        step = self._scheduler.schedule(time.monotonic(), is_shared=is_shared)
        self._pace.set(len(step.running))
        started_s = time.perf_counter()
        found = self._executor.run(step, self.guard)
        if found.rows is not None and self._can_wait(step):
            self._pending = self._drawn(step.running, found.rows)
            return
        self._accept(step, found)
        self._scheduler.observe(step, time.perf_counter() - started_s)

    def use_adapters(self, adapters: AdapterBank) -> None:
        """Have ``adapters`` change the model for the jobs that bring one."""
        self._adapters, self._executor = adapters, Executor(self.runner, adapters)

    def change_runner(self, runner: Runner) -> None:
        """Let ``runner``, which has the same cache and can do the same, make the passes from the next step on."""
        assert runner.cache is self.runner.cache and runner.can_mix == self.runner.can_mix
        self.runner, self._executor = runner, Executor(runner, self._adapters)

    def rest(self, now_s: float) -> float | None:
        """Give memory back that was not needed for long; seconds until there may be more, None: never while idle."""
        self.guard.run([], partial(self._trimmer.look, now_s))
        if self._adapters is not None:
            self.guard.run([], self._adapters.trim)
        return self._trimmer.next_look_s(now_s)

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        self._scheduler.fail_waiting(error)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self._pending = None
        self._scheduler.fail_all(error)

    def _start(self, job: Job) -> Sequence | None:
        """The sequence of a job that leaves the queue; None where it cannot be made, which ends the job."""
        sequence = self.guard.run([job], partial(self._make_sequence, job))
        if sequence is None:
            job.fail(InternalError())
        return sequence

    def _make_sequence(self, job: Job) -> Sequence:
        sequence = Sequence(job, self._text_model, self._pace)
        if self._options.num_draft_tokens:
            sequence.lookup = PromptLookup(
                sequence.tokens, self._options.num_draft_tokens, adapts=self._options.adapts_drafts
            )
        return sequence

    def _accept(self, step: ScheduledStep[Sequence], found: StepLogits) -> None:
        """Draw tokens from what the passes gave; end and release what has come to its end, or failed."""
        scored = [
            self.guard.run([sequence.job], partial(sequence.take_prompt, chunk.tokens, logits))
            if logits is not None
            else None
            for sequence, chunk, logits in zip(step.reading, step.plan.chunks, found.chunks, strict=True)
        ]
        if found.rows is None:
            _fail(step.running)
            self._release_ended(step.running, step.running)
        else:
            self._accept_drafted(step.running, step.drafts, found.rows)
        for sequence, logits in zip(step.reading, scored, strict=True):
            self._accept_chunk(sequence, logits)

    def _accept_chunk(self, sequence: Sequence, logits: torch.Tensor | None) -> None:
        """A part of the prompt is in the cache, or was not to be had; behind the last part the first token is drawn."""
        failed = []
        if logits is None:
            failed = [sequence]
            _fail(failed)
        elif sequence.num_uncached == 0:
            self._scheduler.start_running(sequence)
            sequence.finish_prompt()
            if not sequence.job.has_ended:
                failed = self._accept_tokens([sequence], logits[-1:])
        self._release_ended([sequence], failed)

    def _accept_drafted(self, sequences: list[Sequence], drafts: list[list[int]], logits: torch.Tensor) -> None:
        """Sample behind each fed token, as far as what was fed is what was sampled.

        Exact for every way of sampling: a token is drawn from the logits that one-by-one decoding
        would have given, with the same random number. Entries behind a wrong guess are overwritten.
        """
        active, failed = list(range(len(sequences))), []
        for at in range(logits.shape[1]):
            for i in active:
                sequences[i].num_cached += 1
            rows = logits[:, at] if len(active) == len(sequences) else logits[active, at]
            failed += self._accept_tokens([sequences[i] for i in active], rows)
            active = [i for i in active if sequences[i].has_confirmed(drafts[i], at)]
            if not active:
                break
        # Not before: a row that moves takes along what is known of it, and more is known with each position.
        self._release_ended(sequences, failed)

    def _accept_tokens(self, sequences: list[Sequence], logits: torch.Tensor) -> list[Sequence]:
        """Sample one token for each of ``sequences``; those that failed. None leaves its row here."""
        samplers = [sequence.sampler for sequence in sequences]
        chosen = self.guard.run([s.job for s in sequences], partial(choose, logits, samplers))
        return self._take(sequences, chosen)

    def _take(self, sequences: list[Sequence], chosen: list[tuple[int, TokenLogprob | None]] | None) -> list[Sequence]:
        """Give each sequence its token; those that failed, which are all of them where there are none."""
        if chosen is None:
            _fail(sequences)
            return sequences
        failed = []
        for sequence, (token, logprob) in zip(sequences, chosen, strict=True):
            if token == UNSOUND:
                self.guard.note_unsound(sequence.job)
                failed.append(sequence)
            else:
                sequence.accept(token, logprob)
        _fail(failed)
        return failed

    def _can_wait(self, step: ScheduledStep[Sequence]) -> bool:
        """Whether the tokens of ``step`` may be read later: nothing that comes next depends on what they are."""
        is_plain = self._goes_ahead and not step.plan.chunks and not any(step.drafts)
        return is_plain and all(one.lookup is None and one.sampler.logits.is_idle for one in step.running)

    def _drawn(self, sequences: list[Sequence], logits: torch.Tensor | None) -> Pending[Sequence]:
        """Tokens behind ``logits`` ``(num_rows, 1, vocab)``, which nobody reads yet."""
        jobs = [sequence.job for sequence in sequences]
        samplers = [sequence.sampler for sequence in sequences]
        drawn = None if logits is None else self.guard.run(jobs, partial(draw_next, logits[:, 0], samplers))
        return Pending(sequences, jobs, drawn)

    def _go_on_behind(self, pending: Pending[Sequence]) -> None:
        """Launch the next pass where it can be, then read the tokens of the last one, and make their text."""
        behind = self._launch_behind(pending) if self._can_launch(pending) else None
        self._read(pending)
        if behind is not None:
            behind.is_last = any(job.has_ended for job in behind.jobs)
        self._pending = None if behind is None or all(job.has_ended for job in behind.jobs) else behind

    def _can_launch(self, pending: Pending[Sequence]) -> bool:
        """Whether all rows go on, whatever their tokens are, and nobody could come in."""
        now_s = time.monotonic()
        if pending.is_last or pending.drawn is None or not self._scheduler.is_steady(now_s):
            return False
        return all(
            job.usage.completion_tokens + 1 < job.params.max_new_tokens and job.stop_cause(now_s) is None
            for job in pending.jobs
        )

    def _launch_behind(self, pending: Pending[Sequence]) -> Pending[Sequence]:
        assert pending.drawn is not None
        # What is no token fails its row when it is read.
        tokens = pending.drawn.tokens.clamp(min=0)[:, None]
        starts = [sequence.num_cached + 1 for sequence in pending.sequences]
        self._pace.set(len(starts))
        return self._drawn(pending.sequences, self._executor.run_behind(pending.jobs, tokens, starts, self.guard))

    def _read(self, pending: Pending[Sequence]) -> None:
        """Accept the tokens of those that have not ended since; end and release what has come to its end, or failed."""
        chosen = None if pending.drawn is None else self.guard.run(pending.jobs, pending.drawn.read)
        live = [i for i, job in enumerate(pending.jobs) if not job.has_ended]
        sequences = [pending.sequences[i] for i in live]
        for sequence in sequences:
            sequence.num_cached += chosen is not None
        failed = self._take(sequences, None if chosen is None else [chosen[i] for i in live])
        self._release_ended(sequences, failed)

    def _release_ended(self, sequences: list[Sequence], failed: list[Sequence]) -> None:
        """Free the rows of those that have ended; what the rows of ``failed`` hold may be wrong."""
        for sequence in sequences:
            if sequence.job.has_ended:
                self._scheduler.release(sequence, is_valid=sequence not in failed)


def _fail(sequences: list[Sequence]) -> None:
    """End ``sequences`` for a fault of ours."""
    for sequence in sequences:
        sequence.fail(InternalError())


def limits_of(options: BatchOptions, text_model: TextModel, runner: Runner) -> Limits:
    """What may be planned for ``runner``."""
    return Limits(
        max_running=options.max_running,
        chunk_tokens=options.prefill_chunk_tokens,
        context_tokens=text_model.context_tokens,
        reuse_prefix=options.reuse_prefix,
        can_mix=runner.can_mix,
        has_drafts=options.num_draft_tokens > 0 and runner.num_snapshots is None,
        reach=runner.reach.without(options.num_draft_tokens),
        adapts_drafts=options.adapts_drafts,
        num_snapshots=runner.num_snapshots,
    )
