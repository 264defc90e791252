"""Micro-batching for encoders: what waits is encoded together, in as few passes as memory allows.

Inference thread only; the same methods as the generators have. Where more than one text waits,
those that are about to arrive are waited for: until one deadline, counted from the first text and
never moved. A text that waits alone is encoded at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch

from app.core.errors import InternalError, RequestError
from app.core.tasks.encoder_jobs import MAX_BATCH_TEXTS, MAX_BATCH_TOKENS, Encoded, EncoderJob
from app.engine.encoding.encoder_heads import HEADS, pass_options
from app.engine.engine_interface import QueuedEngine
from app.engine.generation.shared_step import SharedStep
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.unpadded import is_unpadded, passing

# What a pass costs beside its tokens, counted in tokens: on a CPU a MiniLM takes 9.5 ms whatever it reads, and 0.37 ms
# for each token; on a GPU a pass is worth more than any padding.
CPU_PASS_TOKENS = 26
# What a token of padding costs where layers take texts without it: embeddings and heads.
UNPADDED_SHARE = 0.02
# Of a step, which may be several passes.
MOST_STEP_TOKENS, FIRST_STEP_TOKENS = 2 * MAX_BATCH_TOKENS, 2048
# Logits of one fill-mask pass: 256 MiB in float32.
MAX_LOGITS = 2**26
WAIT_S = 0.001
# A request that comes during a step waits for its end: a large one must not make that long.
OWN_STEP_S = 0.25


class MicroBatcher(QueuedEngine[EncoderJob]):
    """Encodes up to ``max_items`` texts per step on one model."""

    def __init__(
        self,
        model: EncoderModel,
        *,
        max_items: int = MAX_BATCH_TEXTS,
        max_tokens: int = MAX_BATCH_TOKENS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        super().__init__(model.checkpoint.device)
        self._model = model
        self._device = model.checkpoint.device
        self._max_items = max_items
        fills_masks = model.task == "fill-mask"
        self._max_tokens = min(max_tokens, MAX_LOGITS // model.vocab_size) if fills_masks else max_tokens
        self._pass_tokens = CPU_PASS_TOKENS if self._device.type == "cpu" else self._max_tokens
        # The head of a model that fills masks is most of its work, and reads padding, too.
        takes_ends = is_unpadded(model.checkpoint.model) and not fills_masks
        self._padding_share = UNPADDED_SHARE if takes_ends else 1.0
        self._read = HEADS[model.task]
        self._options = pass_options(model.checkpoint)
        self._clock = clock
        self._sleep = sleep
        self._shared = SharedStep(self._max_tokens)
        self._own = SharedStep(MOST_STEP_TOKENS, step_s=OWN_STEP_S, first_tokens=FIRST_STEP_TOKENS)

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0

    @torch.inference_mode()
    def step(self, *, is_shared: bool = False) -> None:
        """Encode what waits, up to the maximum; or wait for more, once, and return.

        As many texts (at least one) as fit into the time of a step, which is shorter where other models wait for it
        (``is_shared``).
        """
        self._waiting.sweep(self._clock())
        if self._waits_for_more():
            return
        started_s = self._clock()
        jobs = self._started((self._shared if is_shared else self._own).tokens)
        for group in self._groups(jobs):
            self._run(self._wanted(group))
        if jobs:
            num_tokens, took_s = sum(len(job.prompt_ids) for job in jobs), self._clock() - started_s
            for bound in (self._shared, self._own):
                bound.observe(num_tokens, took_s)

    def _started(self, most_tokens: int) -> list[EncoderJob]:
        """The next texts: one, and those behind it that fit as well."""
        jobs: list[EncoderJob] = []
        while len(self._waiting) > 0 and len(jobs) < self._max_items:
            most_tokens -= len(self._waiting.first.prompt_ids)
            if jobs and most_tokens < 0:
                break
            jobs.append(self._waiting.start_next())
        return jobs

    def fail_all(self, error: RequestError) -> None:
        """End every job; between two steps all of them wait."""
        self._waiting.fail_all(error)

    def _waits_for_more(self) -> bool:
        """Sleep until the deadline of the first text if others wait with it and there is room for more."""
        if not 1 < len(self._waiting) < self._max_items:
            return False
        left_s = self._waiting.first.timings.created_s + WAIT_S - self._clock()
        if left_s <= 0:
            return False
        self._sleep(left_s)
        return True

    def _groups(self, jobs: list[EncoderJob]) -> list[list[EncoderJob]]:
        """Texts of similar length together, so that little is padded; each group fits one pass."""
        ordered = sorted(jobs, key=lambda job: len(job.prompt_ids))
        lengths = [len(job.prompt_ids) for job in ordered]
        ends = cheapest_cuts(lengths, self._max_tokens, self._pass_tokens, self._padding_share)
        return [ordered[first:end] for first, end in pairwise([0, *ends])]

    def _wanted(self, jobs: list[EncoderJob]) -> list[EncoderJob]:
        """Those that were neither cancelled nor late while other groups ran; the others end here."""
        wanted = []
        for job in jobs:
            if (cause := job.stop_cause(self._clock())) is None:
                wanted.append(job)
            else:
                job.fail(cause)
        return wanted

    def _run(self, jobs: list[EncoderJob]) -> None:
        """One pass over ``jobs``; where it fails, one for each, so that none fails for another's sake."""
        results = self.guard.run(jobs, partial(self._encode, jobs)) if jobs else []
        if results is not None:
            for job, encoded in zip(jobs, results, strict=True):
                if encoded.is_sound:
                    job.finish_with(encoded)
                else:
                    self.guard.note_unsound(job)
                    job.fail(InternalError())
        elif len(jobs) > 1 and self.guard.poison is None:
            for job in jobs:
                self._run([job])
        else:
            for job in jobs:
                job.fail(InternalError())

    def _encode(self, jobs: Sequence[EncoderJob]) -> list[Encoded]:
        return self._read(self._model, self._forward(jobs), jobs)

    def _forward(self, jobs: Sequence[EncoderJob]) -> Any:
        """The model's output for the texts, padded on the right to ``(num_jobs, longest)``."""
        length = max(len(job.prompt_ids) for job in jobs)
        ids = [_padded(job.prompt_ids, length, self._model.pad_id) for job in jobs]
        mask = [_padded([1] * len(job.prompt_ids), length, 0) for job in jobs]
        inputs = {"input_ids": ids, "attention_mask": mask}
        if any(job.given.type_ids for job in jobs):
            inputs["token_type_ids"] = [_padded(job.given.type_ids, length, 0) for job in jobs]
        tensors = {name: torch.tensor(rows, device=self._device) for name, rows in inputs.items()}
        with passing(self._model.checkpoint.model, [len(job.prompt_ids) for job in jobs]):
            return self._model.checkpoint.model(**tensors, **self._options)


def _padded(values: list[int], length: int, filler: int) -> list[int]:
    return [*values, *[filler] * (length - len(values))]


def cheapest_cuts(lengths: Sequence[int], max_tokens: int, pass_tokens: int, padding_share: float = 1.0) -> list[int]:
    """Where the groups of texts end so that all passes together cost least; ``lengths`` ascend.

    A pass costs ``pass_tokens``, its tokens, and ``padding_share`` of those that fill each text up to the longest. With
    them it has ``max_tokens`` at most, unless it is one text.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    sums = [0, *accumulate(lengths)]
    for end in range(1, len(lengths) + 1):
        longest = lengths[end - 1]
        costs = []
        for first in range(end):
            padded = longest * (end - first)
            if padded <= max_tokens or end - first == 1:
                tokens = sums[end] - sums[first]
                costs.append((best[first][0] + pass_tokens + tokens + padding_share * (padded - tokens), first))
        best.append(min(costs))
    ends, end = [], len(lengths)
    while end:
        ends.append(end)
        end = best[end][1]
    return ends[::-1]
