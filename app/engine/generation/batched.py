"""Scheduler and step: sequences join, are prefilled in chunks, decode together, leave.

One ``step`` admits waiting jobs to free rows, prefills a bounded number of prompt tokens and
decodes one token for every running row. Inference thread only; knows neither HTTP nor loading.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TypeAlias

import torch

from app.core.errors import InternalError, RequestError
from app.core.jobs import Job
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.prefill_budget import PrefillBudget
from app.engine.generation.prompt_lookup import PromptLookup
from app.engine.generation.sequence import Sequence
from app.engine.generation.shared_step import SharedStep
from app.engine.generation.waiting import WaitingJobs
from app.engine.guard import Guard
from app.engine.kv.rows import RowTable
from app.engine.kv.trimming import Trimmer
from app.engine.runners.choose import Runner, make_runner
from app.engine.runners.mixed import Chunk, MixedRunner
from app.engine.sampling.sampler import UNSOUND, choose
from app.engine.text.text_output import Pace
from app.models.text_model import TextModel

# A sequence and the part of its prompt that a step reads.
Part: TypeAlias = tuple[Sequence, list[int]]


class BatchedEngine:
    """Decodes up to ``options.max_running`` sequences together on one model.

    ``runner`` makes its passes; default: the fastest that the model's architecture allows.
    """

    def __init__(self, text_model: TextModel, options: BatchOptions, runner: Runner | None = None):
        checkpoint, max_running = text_model.checkpoint, options.max_running
        self._text_model = text_model
        self._options = options
        self.guard = Guard(checkpoint.device)
        self.runner = runner or make_runner(options.runner, checkpoint, max_running, text_model.context_tokens)
        self._rows = RowTable(self.runner.cache, max_running, options.reuse_prefix)
        self._budget = PrefillBudget(options.prefill_chunk_tokens)
        self._shared = SharedStep(options.prefill_chunk_tokens)
        self._trimmer = Trimmer(self.runner.cache, self._rows, self.guard.give_back)
        self._pace = Pace()
        self._waiting = WaitingJobs[Job]()

    def add(self, job: Job) -> None:
        """Queue ``job``, first come first served."""
        self._waiting.add(job)

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0 or self._rows.num_running > 0 or self._rows.num_prefilling > 0

    @torch.inference_mode()
    def step(self, *, is_shared: bool = False) -> None:
        """Bring every sequence forward: by a chunk of its prompt, or by a token (and what its draft saved).

        ``is_shared``: other models wait for this step, so what it reads of prompts is bounded in time.
        """
        self._sweep()
        self._admit()
        self._pace.set(self._rows.num_running)
        self._forward(self._rows.num_running, self._parts(is_shared))

    def rest(self, now_s: float) -> float | None:
        """Give memory back that was not needed for long; seconds until there may be more, None: never while idle."""
        self.guard.run([], partial(self._trimmer.look, now_s))
        return self._trimmer.next_look_s(now_s)

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        self._waiting.fail_all(error)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self._waiting.fail_all(error)
        for sequence in self._rows.active:
            self._fail(sequence, error)

    def _sweep(self) -> None:
        """End what was cancelled or is over its deadline, waiting or active."""
        now_s = time.monotonic()
        self._waiting.sweep(now_s)
        for sequence in self._rows.active:
            if (cause := sequence.job.stop_cause(now_s)) is not None:
                self._fail(sequence, cause, is_valid=True)

    def _admit(self) -> None:
        while len(self._waiting) > 0 and self._rows.num_free > 0:
            job = self._waiting.start_next()
            sequence = self.guard.run([job], partial(self._make_sequence, job))
            if sequence is None:
                job.fail(InternalError())
            else:
                self._rows.take(sequence)

    def _make_sequence(self, job: Job) -> Sequence:
        sequence = Sequence(job, self._text_model, self._pace, defers_text=self._options.overlap_text)
        if self._options.num_draft_tokens:
            sequence.lookup = PromptLookup(sequence.tokens, self._options.num_draft_tokens)
        return sequence

    def _parts(self, is_shared: bool) -> list[Part]:
        """A bounded number of prompt tokens, first come first served, so that running sequences do not stall."""
        budget = self._budget.tokens(self._rows.num_running)
        budget = min(budget, self._shared.tokens) if is_shared else budget
        parts = []
        for sequence in self._rows.prefilling:
            if budget <= 0:
                break
            tokens = sequence.tokens[sequence.num_cached : sequence.num_cached + budget]
            budget -= len(tokens)
            parts.append((sequence, tokens))
        return parts

    def _forward(self, num_running: int, parts: list[Part]) -> None:
        started_s = time.perf_counter()
        if not self._mix(parts):
            self._prefill(parts)
            self._decode()
        num_prompt_tokens, took_s = sum(len(tokens) for _, tokens in parts), time.perf_counter() - started_s
        self._budget.observe(num_running, num_prompt_tokens, took_s)
        if num_prompt_tokens:
            self._shared.observe(num_prompt_tokens, took_s)

    def _mix(self, parts: list[Part]) -> bool:
        """Prompts and next tokens in one pass, where that saves one; False where nothing was done.

        Where the pass fails, separate ones follow: only the sequence that it fails for is to fail.
        """
        if not isinstance(self.runner, MixedRunner) or not parts or self._rows.num_running + len(parts) < 2:
            return False
        running = self._rows.running
        if any(self._drafts(running)):
            return False
        chunks = [
            Chunk(self._rows.index(sequence), tokens, sequence.num_cached, sequence.is_scored)
            for sequence, tokens in parts
        ]
        last, starts = [sequence.tokens[-1] for sequence in running], [sequence.num_cached for sequence in running]
        jobs = [sequence.job for sequence in running + [sequence for sequence, _ in parts]]
        result = self.guard.run(jobs, partial(self.runner.mixed, last, starts, chunks))
        if result is None:
            return False
        self._write_texts(running)
        self._take_mixed(running, parts, *result)
        return True

    def _take_mixed(
        self, running: list[Sequence], parts: list[Part], decoded: torch.Tensor, prefilled: list[torch.Tensor]
    ) -> None:
        # What the cache holds of each prompt is noted before any row moves.
        scored = [
            self.guard.run([sequence.job], partial(sequence.take_prompt, tokens, logits))
            for (sequence, tokens), logits in zip(parts, prefilled, strict=True)
        ]
        self._accept_drafted(running, [[] for _ in running], decoded)
        for (sequence, _), logits in zip(parts, scored, strict=True):
            self._take_chunk(sequence, logits)

    def _prefill(self, parts: list[Part]) -> None:
        for sequence, tokens in parts:
            self._take_chunk(sequence, self.guard.run([sequence.job], partial(self._prefill_chunk, sequence, tokens)))

    def _prefill_chunk(self, sequence: Sequence, tokens: list[int]) -> torch.Tensor:
        row = self._rows.index(sequence)
        logits = self.runner.prefill(row, tokens, sequence.num_cached, all_logits=sequence.is_scored)
        return sequence.take_prompt(tokens, logits)

    def _take_chunk(self, sequence: Sequence, logits: torch.Tensor | None) -> None:
        """A part of the prompt is in the cache, or was not to be had; behind the last part the first token is drawn."""
        if logits is None:
            self._fail(sequence, InternalError())
        elif sequence.num_uncached == 0:
            self._rows.start_running(sequence)
            sequence.finish_prompt()
            if sequence.job.has_ended:
                self._rows.release(sequence)
            else:
                self._accept([sequence], logits[-1:])

    def _decode(self) -> None:
        sequences = self._rows.running
        if not sequences:
            return
        drafts = self._drafts(sequences)
        longest = max(map(len, drafts))
        tokens = [
            [sequence.tokens[-1], *draft, *[0] * (longest - len(draft))]
            for sequence, draft in zip(sequences, drafts, strict=True)
        ]
        starts = [sequence.num_cached for sequence in sequences]
        logits = self.guard.run([s.job for s in sequences], partial(self.runner.decode, tokens, starts))
        self._write_texts(sequences)
        if logits is None:
            for sequence in sequences:
                self._fail(sequence, InternalError())
            return
        self._accept_drafted(sequences, drafts, logits)

    def _write_texts(self, sequences: list[Sequence]) -> None:
        """A GPU has only been told to run the pass: the last tokens' text is made meanwhile."""
        if self._options.overlap_text:
            for sequence in sequences:
                sequence.write_text()

    def _drafts(self, sequences: list[Sequence]) -> list[list[int]]:
        """Proposed next tokens per sequence; no pass may write behind the context."""
        if not self._options.num_draft_tokens or not sequences:
            return [[] for _ in sequences]
        room = self._text_model.context_tokens - 1 - max(sequence.num_cached for sequence in sequences)
        return [sequence.draft(room) for sequence in sequences]

    def _accept_drafted(self, sequences: list[Sequence], drafts: list[list[int]], logits: torch.Tensor) -> None:
        """Sample behind each fed token, as far as what was fed is what was sampled.

        Exact for every way of sampling: a token is drawn from the logits that one-by-one decoding
        would have given, with the same random number. Entries behind a wrong guess are overwritten.
        """
        active = list(range(len(sequences)))
        for at in range(logits.shape[1]):
            for i in active:
                sequences[i].num_cached += 1
            rows = logits[:, at] if len(active) == len(sequences) else logits[active, at]
            is_last = at + 1 == logits.shape[1]
            if not self._accept([sequences[i] for i in active], rows) or is_last:
                return
            active = [i for i in active if sequences[i].has_confirmed(drafts[i], at)]
            if not active:
                return

    def _accept(self, sequences: list[Sequence], logits: torch.Tensor) -> bool:
        """Sample one token for each of ``sequences``; False where that failed, and they with it."""
        samplers = [sequence.sampler for sequence in sequences]
        chosen = self.guard.run([s.job for s in sequences], partial(choose, logits, samplers))
        if chosen is None:
            for sequence in sequences:
                self._fail(sequence, InternalError())
            return False
        for sequence, (token, logprob) in zip(sequences, chosen, strict=True):
            if token == UNSOUND:
                self.guard.note_unsound(sequence.job)
                self._fail(sequence, InternalError())
                continue
            sequence.accept(token, logprob)
            if sequence.job.has_ended:
                self._rows.release(sequence)
        return True

    def _fail(self, sequence: Sequence, error: RequestError, *, is_valid: bool = False) -> None:
        sequence.fail(error)
        if not is_valid and self.guard.poison is None:
            self.guard.run([], partial(self.runner.cache.clear_row, self._rows.index(sequence)))
        self._rows.release(sequence, is_valid=is_valid)
