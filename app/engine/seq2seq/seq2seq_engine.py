"""Texts from texts through transformers' own ``generate``, those with equal settings together. Inference thread only.

A batch runs from its first token to its last; the loop of ``generate`` gives one token of all its texts per step, so
that deadlines and cancellation count at every token. With one beam a text ends, and is answered, when it is done;
with several none is known before the whole search has ended.

Who comes while a batch runs waits for its end, since texts that begin together cost the least, but no longer than half
of what its own text may take, and never long: then another batch begins, and both go forward token by token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from app.core.errors import InternalError, RequestError
from app.core.tasks.seq2seq_jobs import MAX_SOURCE_TOKENS, Decoding, Seq2SeqJob
from app.engine.engine_interface import QueuedEngine
from app.engine.generation.sequence import Sequence
from app.engine.generation.stepped_work import SteppedWork
from app.engine.guard import Guard
from app.engine.seq2seq.batch_hooks import BatchEnd, BeamCheck, RowChoice
from app.engine.text.text_output import Pace
from app.models.encoders.seq2seq_model import Seq2SeqModel

# Those who were answered together come again together: so much of what their batch took the next one waits for them.
GATHER_SHARE, MOST_GATHER_S = 0.02, 0.02
# How long a text waits for those that run, of the time that its own tokens may take.
WAIT_SHARE, MOST_WAIT_S = 0.5, 2.0
MOST_BATCHES = 4


@dataclass(slots=True)
class Batch:
    """Texts that are made together, and the ``generate`` that makes them."""

    members: list[tuple[Seq2SeqJob, Sequence]]
    generation: SteppedWork
    started_s: float
    num_steps: int = 0

    @property
    def num_source_tokens(self) -> int:
        """With their padding."""
        return len(self.members) * max(len(job.prompt_ids) for job in self.jobs)

    @property
    def jobs(self) -> list[Seq2SeqJob]:
        return [job for job, _ in self.members]

    @property
    def running(self) -> list[tuple[Seq2SeqJob, Sequence]]:
        return [(job, sequence) for job, sequence in self.members if not job.has_ended]


class Seq2SeqEngine(QueuedEngine[Seq2SeqJob]):
    """Makes up to ``max_rows`` texts at once on one model."""

    def __init__(
        self,
        model: Seq2SeqModel,
        *,
        max_rows: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        super().__init__(model.checkpoint.device)
        self._model = model
        self._max_rows = max_rows
        self._clock = clock
        self._sleep = sleep
        self._pace = Pace()
        # Of batches that failed: each is tried by itself, so that none fails for another's sake.
        self._alone: list[Seq2SeqJob] = []
        self._batches: list[Batch] = []
        # Since when somebody waits for batches that run; None where nobody does.
        self._waited_from_s: float | None = None
        self._gathers_until_s = 0.0
        self._last_size = 0

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0 or bool(self._alone or self._batches)

    def step(self, *, is_shared: bool = False) -> None:
        """Bring the batches that run forward by a token; where others wait for the step, one of them."""
        now_s = self._clock()
        self._waiting.sweep(now_s)
        for batch in list(self._batches):
            self._end_overdue(batch, now_s)
        if self._may_begin(now_s):
            self._begin()
        for batch in self._batches[:1] if is_shared else list(self._batches):
            self._batches.remove(batch)
            if self._advance(batch):
                self._batches.append(batch)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self._waiting.fail_all(error)
        for job in self._alone:
            job.fail(error)
        self._alone.clear()
        batches, self._batches = self._batches, []
        for batch in batches:
            for _, sequence in batch.running:
                sequence.fail(error)
            batch.generation.abandon()

    def _may_begin(self, now_s: float) -> bool:
        """Whether somebody waits who need not wait for those that run, or not any more."""
        if not (self._alone or len(self._waiting)):
            self._waited_from_s = None
            return False
        if not self._batches:
            return not self._waits_for_more(now_s)
        if self._waited_from_s is None:
            self._waited_from_s = now_s
        return len(self._batches) < MOST_BATCHES and now_s - self._waited_from_s >= self._most_wait_s(now_s)

    def _most_wait_s(self, now_s: float) -> float:
        """How long the next text waits for those that run."""
        newest = max(self._batches, key=lambda batch: batch.started_s)
        step_s = (now_s - newest.started_s) / max(newest.num_steps, 1)
        job = self._alone[0] if self._alone else self._waiting.first
        return min(WAIT_SHARE * job.params.max_new_tokens * step_s, MOST_WAIT_S)

    def _waits_for_more(self, now_s: float) -> bool:
        """Sleep a little, if the last batch was larger than what waits and has just ended."""
        if not 0 < len(self._waiting) < min(self._last_size, self._max_rows) or self._alone:
            return False
        left_s = self._gathers_until_s - now_s
        if left_s <= 0:
            return False
        self._sleep(min(left_s, 0.001))
        return True

    def _begin(self) -> None:
        """Begin the next batch, if there is room for what waits."""
        jobs = [self._alone.pop(0)] if self._alone else self._next_jobs()
        members = [(job, sequence) for job in jobs if (sequence := self._sequence(job)) is not None]
        if not members:
            return
        self._waited_from_s = None
        self._pace.set(sum(len(batch.members) for batch in self._batches) + len(members))
        # Not a method of ours: what the producer holds would hold the engine, and nobody could let go of both.
        sequences = [sequence for _, sequence in members]
        work = partial(generate, self._model, members[0][0].decoding, sequences, self.guard)
        self._batches.append(Batch(members, SteppedWork(work, torch.inference_mode), self._clock()))

    def _next_jobs(self) -> list[Seq2SeqJob]:
        """The next text, where it fits beside those that run, and others of equal decoding that do, too."""
        num_rows = self._max_rows - sum(len(batch.running) for batch in self._batches)
        room = MAX_SOURCE_TOKENS - sum(batch.num_source_tokens for batch in self._batches)
        if self._batches and not (num_rows > 0 and fits([], room, self._waiting.first)):
            return []
        jobs = [self._waiting.start_next()]
        while len(jobs) < num_rows and (job := self._waiting.start_first(partial(fits, jobs, room))) is not None:
            jobs.append(job)
        return jobs

    def _sequence(self, job: Seq2SeqJob) -> Sequence | None:
        """None where it cannot be made, which ends the job."""
        make = partial(Sequence, job, self._model, self._pace, begin=[self._model.start_id])
        sequence = self.guard.run([job], make)
        if sequence is None:
            job.fail(InternalError())
        return sequence

    def _end_overdue(self, batch: Batch, now_s: float) -> None:
        for job, sequence in batch.running:
            if (cause := job.stop_cause(now_s)) is not None:
                sequence.fail(cause)
        if not batch.running:
            batch.generation.abandon()
            self._batches.remove(batch)

    def _advance(self, batch: Batch) -> bool:
        """A token of each of its texts; whether the batch goes on."""
        batch.num_steps += 1
        if self.guard.run(batch.jobs, batch.generation.advance):
            return True
        now_s = self._clock()
        self._last_size = len(batch.members)
        self._gathers_until_s = now_s + min(GATHER_SHARE * (now_s - batch.started_s), MOST_GATHER_S)
        # It has raised, where it leaves any.
        for job, sequence in batch.running:
            if len(batch.members) > 1 and job.usage.completion_tokens == 0 and self.guard.poison is None:
                self._alone.append(job)
            else:
                sequence.fail(InternalError())
        return False


def fits(jobs: list[Seq2SeqJob], room: int, job: Seq2SeqJob) -> bool:
    """Whether ``job`` can be made together with ``jobs``, within ``room`` tokens of sources."""
    longest = max(len(one.prompt_ids) for one in [*jobs, job])
    return (not jobs or job.decoding == jobs[0].decoding) and (len(jobs) + 1) * longest <= room


def generate(
    model: Seq2SeqModel,
    decoding: Decoding,
    sequences: list[Sequence],
    guard: Guard,
    pause: Callable[[], None],
) -> None:
    """Bring ``sequences`` to their ends by the model's ``generate``; ``pause`` is called behind all tokens but the
    last."""
    ids, mask = padded([sequence.job.prompt_ids for sequence in sequences], model.pad_id, model.checkpoint.device)
    most_tokens = decoding.most_tokens or max(sequence.job.params.max_new_tokens for sequence in sequences)
    choice = RowChoice(sequences, guard) if decoding.num_beams == 1 else None
    found = model.checkpoint.model.generate(
        ids,
        attention_mask=mask,
        generation_config=model.generation_config(decoding, most_tokens),
        logits_processor=LogitsProcessorList([choice or BeamCheck(sequences, guard)]),
        stopping_criteria=StoppingCriteriaList([BatchEnd(sequences, choice, pause)]),
    )
    if choice is None:
        hand_out(sequences, found.tolist())
    for sequence in sequences:
        sequence.end_by_length()


def hand_out(sequences: list[Sequence], rows: list[list[int]]) -> None:
    """Give each text its tokens, without the one that the decoder began with, as far as it takes them."""
    for sequence, row in zip(sequences, rows, strict=True):
        for token in row[1:]:
            if not sequence.job.has_ended:
                sequence.accept(token)


def padded(rows: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask ``(num_rows, longest)``, padded on the right."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
