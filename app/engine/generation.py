"""Scheduler and step: sequences join, are prefilled in chunks, decode together, leave.

One ``step`` admits waiting jobs to free rows, prefills a bounded number of prompt tokens and
decodes one token for every running row. Inference thread only; knows neither HTTP nor loading.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from app.core.errors import InternalError, RequestError
from app.core.jobs import Job
from app.core.logging import get_logger
from app.engine.kv_slots import SlotCache
from app.engine.rows import RowTable
from app.engine.sampling import sample
from app.engine.sequence import Sequence
from app.models.text_model import TextModel

log = get_logger("engine")
T = TypeVar("T")


class Generator:
    """Decodes up to ``num_slots`` sequences together on one model."""

    def __init__(self, text_model: TextModel, *, num_slots: int, prefill_chunk_tokens: int, reuse_prefix: bool = True):
        self._text_model = text_model
        self._model: PreTrainedModel = text_model.checkpoint.model
        self._device = text_model.checkpoint.device
        config = self._model.config.get_text_config()
        self._cache = SlotCache(config.num_hidden_layers, num_slots, text_model.context_tokens)
        self._rows = RowTable(self._cache, num_slots, reuse_prefix)
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._waiting: deque[Job] = deque()
        # Set once a device error leaves every later call failing: the process must be replaced.
        self.poison: str | None = None

    def add(self, job: Job) -> None:
        """Queue ``job``, first come first served."""
        self._waiting.append(job)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or self._rows.num_running > 0 or self._rows.num_prefilling > 0

    @torch.inference_mode()
    def step(self) -> None:
        """Bring every sequence forward by at most one token."""
        self._sweep()
        self._admit()
        self._prefill()
        self._decode()

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        while self._waiting:
            self._waiting.popleft().fail(error)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self.fail_waiting(error)
        for sequence in self._rows.running + self._rows.prefilling:
            self._fail(sequence, error)

    def _sweep(self) -> None:
        """End what was cancelled or is over its deadline, waiting or active."""
        now = time.monotonic()
        for sequence in self._rows.running + self._rows.prefilling:
            if (cause := sequence.job.stop_cause(now)) is not None:
                self._fail(sequence, cause, is_valid=True)
        causes = [(job, job.stop_cause(now)) for job in self._waiting]
        if any(cause is not None for _, cause in causes):
            self._waiting = deque(job for job, cause in causes if cause is None)
            for job, cause in causes:
                if cause is not None:
                    job.fail(cause)

    def _admit(self) -> None:
        while self._waiting and self._rows.num_free > 0:
            job = self._waiting.popleft()
            job.start()
            text_model = self._text_model
            self._rows.take(Sequence(job, text_model.decode, text_model.eos_ids, text_model.vocab_size, self._device))

    def _prefill(self) -> None:
        """Up to ``prefill_chunk_tokens`` prompt tokens, so that running sequences do not stall."""
        budget = self._prefill_chunk_tokens
        for sequence in self._rows.prefilling:
            if budget <= 0:
                return
            num_new = min(budget, sequence.num_uncached)
            budget -= num_new
            logits = self._guarded([sequence], partial(self._forward_chunk, sequence, num_new))
            if logits is not None and sequence.num_uncached == 0:
                self._rows.start_running(sequence)
                self._accept([sequence], logits)

    def _decode(self) -> None:
        sequences = self._rows.running
        if not sequences:
            return
        logits = self._guarded(sequences, partial(self._forward_rows, sequences))
        if logits is not None:
            self._accept(sequences, logits)

    def _accept(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        tokens = self._guarded(sequences, partial(sample, logits, [sequence.sampler for sequence in sequences]))
        if tokens is None:
            return
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.accept(token)
            if sequence.job.has_ended:
                self._rows.release(sequence)

    def _forward_chunk(self, sequence: Sequence, num_new: int) -> torch.Tensor:
        """Logits ``(1, vocab)`` behind the next ``num_new`` tokens of one sequence."""
        start = sequence.num_cached
        self._cache.window.set(self._rows.index(sequence), [start], num_new)
        ids = torch.tensor([sequence.tokens[start : start + num_new]], device=self._device)
        positions = torch.arange(start, start + num_new, device=self._device)[None]
        logits = self._forward(ids, positions, None)
        sequence.num_cached += num_new
        return logits

    def _forward_rows(self, sequences: list[Sequence]) -> torch.Tensor:
        """Logits ``(num_rows, vocab)`` behind the last token of each running sequence."""
        starts = [sequence.num_cached for sequence in sequences]
        self._cache.window.set(0, starts, 1, self._device)
        ids = torch.tensor([sequence.tokens[-1:] for sequence in sequences], device=self._device)
        positions = torch.tensor(starts, device=self._device)[:, None]
        logits = self._forward(ids, positions, self._mask(positions) if len(starts) > 1 else None)
        for sequence in sequences:
            sequence.num_cached += 1
        return logits

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _mask(self, positions: torch.Tensor) -> torch.Tensor:
        """Additive mask ``(rows, 1, 1, length)``: each row sees its own entries up to its position."""
        entries = torch.arange(self._cache.window.length, device=self._device)
        is_visible = entries <= positions[:, None, None]
        mask = torch.zeros(is_visible.shape, dtype=self._model.dtype, device=self._device)
        return mask.masked_fill_(~is_visible, torch.finfo(self._model.dtype).min)

    def _fail(self, sequence: Sequence, error: RequestError, *, is_valid: bool = False) -> None:
        sequence.job.fail(error)
        self._rows.release(sequence, is_valid=is_valid)

    def _guarded(self, sequences: list[Sequence], work: Callable[[], T]) -> T | None:
        """The result of ``work``; None, with ``sequences`` failed, where it raises.

        Memory is given back after the ``except`` block: inside it the traceback keeps the tensors
        of the failed pass alive (pytorch issue 18853).
        """
        is_out_of_memory = False
        try:
            return work()
        except Exception as error:
            request_ids = [sequence.job.request_id for sequence in sequences]
            log.exception("inference_failed", request_ids=request_ids)
            is_out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
            if not is_out_of_memory and self._device.type == "cuda" and is_device_error(error):
                self.poison = str(error).splitlines()[0]
        for sequence in sequences:
            self._fail(sequence, InternalError())
        if is_out_of_memory and self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def is_device_error(error: Exception) -> bool:
    """Whether ``error`` came from the device itself, after which its context cannot be used."""
    return isinstance(error, torch.AcceleratorError)
