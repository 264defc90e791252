"""Scheduler and step: sequences join, are prefilled in chunks, decode together, leave.

One ``step`` admits waiting jobs to free rows, prefills a bounded number of prompt tokens and
decodes one token for every running row. Inference thread only; knows neither HTTP nor loading.
"""

from __future__ import annotations

import time
from functools import partial

import torch

from app.core.errors import InternalError, RequestError
from app.core.jobs import Job
from app.engine.guard import Guard
from app.engine.rows import RowTable
from app.engine.runner import SlotRunner
from app.engine.sampling import sample
from app.engine.sequence import Sequence
from app.engine.waiting import WaitingJobs
from app.models.text_model import TextModel


class SlotGenerator:
    """Decodes up to ``num_slots`` sequences together on one model."""

    def __init__(self, text_model: TextModel, *, num_slots: int, prefill_chunk_tokens: int, reuse_prefix: bool = True):
        self._text_model = text_model
        checkpoint = text_model.checkpoint
        self.guard = Guard(checkpoint.device)
        self.runner = SlotRunner(checkpoint.model, checkpoint.device, num_slots, text_model.context_tokens)
        self._rows = RowTable(self.runner.cache, num_slots, reuse_prefix)
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._waiting = WaitingJobs()

    def add(self, job: Job) -> None:
        """Queue ``job``, first come first served."""
        self._waiting.add(job)

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0 or self._rows.num_running > 0 or self._rows.num_prefilling > 0

    @torch.inference_mode()
    def step(self) -> None:
        """Bring every sequence forward by at most one token."""
        self._sweep()
        while len(self._waiting) > 0 and self._rows.num_free > 0:
            self._rows.take(Sequence(self._waiting.start_next(), self._text_model))
        self._prefill()
        self._decode()

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        self._waiting.fail_all(error)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self._waiting.fail_all(error)
        for sequence in self._rows.running + self._rows.prefilling:
            self._fail(sequence, error)

    def _sweep(self) -> None:
        """End what was cancelled or is over its deadline, waiting or active."""
        now_s = time.monotonic()
        self._waiting.sweep(now_s)
        for sequence in self._rows.running + self._rows.prefilling:
            if (cause := sequence.job.stop_cause(now_s)) is not None:
                self._fail(sequence, cause, is_valid=True)

    def _prefill(self) -> None:
        """Up to ``prefill_chunk_tokens`` prompt tokens, so that running sequences do not stall."""
        budget = self._prefill_chunk_tokens
        for sequence in self._rows.prefilling:
            if budget <= 0:
                return
            start = sequence.num_cached
            tokens = sequence.tokens[start : start + budget]
            budget -= len(tokens)
            logits = self.guard.run([sequence], partial(self.runner.prefill, self._rows.index(sequence), tokens, start))
            if logits is None:
                self._fail(sequence, InternalError())
                continue
            sequence.num_cached += len(tokens)
            if sequence.num_uncached == 0:
                self._rows.start_running(sequence)
                self._accept([sequence], logits)

    def _decode(self) -> None:
        sequences = self._rows.running
        if not sequences:
            return
        tokens = [sequence.tokens[-1] for sequence in sequences]
        starts = [sequence.num_cached for sequence in sequences]
        logits = self.guard.run(sequences, partial(self.runner.decode, tokens, starts))
        if logits is None:
            self._fail_each(sequences)
            return
        for sequence in sequences:
            sequence.num_cached += 1
        self._accept(sequences, logits)

    def _accept(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        samplers = [sequence.sampler for sequence in sequences]
        tokens = self.guard.run(sequences, partial(sample, logits, samplers))
        if tokens is None:
            self._fail_each(sequences)
            return
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.accept(token)
            if sequence.job.has_ended:
                self._rows.release(sequence)

    def _fail_each(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._fail(sequence, InternalError())

    def _fail(self, sequence: Sequence, error: RequestError, *, is_valid: bool = False) -> None:
        sequence.job.fail(error)
        self._rows.release(sequence, is_valid=is_valid)
