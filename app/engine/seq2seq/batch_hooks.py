"""What ``generate`` calls at every token of a batch: tokens are chosen, handed on, and ended. Inference thread only.

Every text has one row of a pass, or one for each of its beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessor, StoppingCriteria

from app.core.errors import InternalError, RequestError
from app.core.work.job_events import TokenLogprob
from app.core.work.jobs import Job
from app.engine.guard import Guard
from app.engine.sampling.pending_tokens import UNSOUND
from app.engine.sampling.row_sampler import RowSampler
from app.engine.sampling.sampler import choose


class Growing(Protocol):
    """A text that is being made: a ``Sequence``."""

    job: Job
    sampler: RowSampler

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> None: ...
    def fail(self, error: RequestError) -> None: ...


def end_unsound(text: Growing, guard: Guard) -> None:
    """End a text, if it has not ended, that the model gave no numbers for."""
    if not text.job.has_ended:
        guard.note_unsound(text.job)
        text.fail(InternalError())


class RowChoice(LogitsProcessor):
    """Chooses the token of every row, and leaves it as the only one, so that greedy ``generate`` takes it."""

    def __init__(self, texts: Sequence[Growing], guard: Guard):
        self._texts = texts
        self._guard = guard
        self.logprobs: list[TokenLogprob | None] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = choose(scores, [text.sampler for text in self._texts])
        self.logprobs = [logprob for _, logprob in chosen]
        for (token, _), text in zip(chosen, self._texts, strict=True):
            if token == UNSOUND:
                end_unsound(text, self._guard)
        tokens = torch.tensor([[max(token, 0)] for token, _ in chosen], device=scores.device)
        return torch.full_like(scores, -math.inf).scatter_(1, tokens, 0.0)


class BeamCheck(LogitsProcessor):
    """Ends texts that the model gives no numbers for; the other rows stay as they are."""

    def __init__(self, texts: Sequence[Growing], guard: Guard):
        self._texts = texts
        self._guard = guard

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        is_unsound = ~(scores.amax(dim=-1) < math.inf)
        if not bool(is_unsound.any()):
            return scores
        num_beams = len(scores) // len(self._texts)
        for row in is_unsound.nonzero()[:, 0].tolist():
            end_unsound(self._texts[row // num_beams], self._guard)
        return scores.masked_fill(is_unsound[:, None], 0.0)


class BatchEnd(StoppingCriteria):
    """Stops the rows of texts that have ended, and waits behind each token while any goes on.

    With a ``choice`` there is a row for each text, whose token is handed to it.
    """

    def __init__(self, texts: Sequence[Growing], choice: RowChoice | None, pause: Callable[[], None]):
        self._texts = texts
        self._choice = choice
        self._pause = pause

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_kwargs: object) -> torch.Tensor:
        if self._choice is not None:
            self._hand_on(input_ids[:, -1].tolist(), self._choice.logprobs)
        if not all(text.job.has_ended for text in self._texts):
            self._pause()
        ended = torch.tensor([text.job.has_ended for text in self._texts], device=input_ids.device)
        return ended.repeat_interleave(len(input_ids) // len(self._texts))

    def _hand_on(self, tokens: list[int], logprobs: list[TokenLogprob | None]) -> None:
        for text, token, logprob in zip(self._texts, tokens, logprobs, strict=True):
            if not text.job.has_ended:
                text.accept(token, logprob)
