"""Serial generation through transformers' own ``generate``, for models that the slot cache cannot serve.

Sliding windows, recurrent states, encoder-decoder models and remote code keep caches of their own.
The contract is that of the slots: our sampler chooses each token (as the only logit that is left),
our sequence ends the job, deadlines and cancellation count at every token. Inference thread only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from app.core.errors import InternalError, RequestError
from app.core.jobs import Job, TokenLogprob
from app.engine.generation.sequence import Sequence
from app.engine.generation.waiting import WaitingJobs
from app.engine.guard import Guard, UnsoundLogitsError
from app.engine.sampling.sampler import UNSOUND, choose
from app.engine.text.text_output import Pace
from app.models.text_model import TextModel


class SerialEngine:
    """Runs one job after another through ``model.generate``.

    ``between_tokens`` is called at every token: a ``generate`` call can take long, and meanwhile
    new jobs arrive and the owner may cancel.
    """

    def __init__(self, text_model: TextModel, between_tokens: Callable[[], None] = lambda: None):
        self._text_model = text_model
        self._model = text_model.checkpoint.model
        self._device = text_model.checkpoint.device
        self.guard = Guard(self._device)
        self.between_tokens = between_tokens
        self._waiting = WaitingJobs[Job]()
        self._active: Job | None = None
        # Ends and penalties are ours: the checkpoint's own would be applied a second time.
        self._model.generation_config = GenerationConfig(pad_token_id=text_model.pad_id)

    def add(self, job: Job) -> None:
        """Queue ``job``, first come first served."""
        self._waiting.add(job)

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0 or self._active is not None

    @torch.inference_mode()
    def step(self) -> None:
        """Bring the next job to its end."""
        self.sweep()
        if len(self._waiting) == 0:
            return
        job = self._active = self._waiting.start_next()
        self.guard.run([job], partial(self._generate, job))
        if not job.has_ended:
            job.fail(InternalError())
        self._active = None

    def sweep(self) -> None:
        """End the waiting jobs that must not start any more."""
        self._waiting.sweep(time.monotonic())

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        self._waiting.fail_all(error)

    def fail_all(self, error: RequestError) -> None:
        """End every job; the active one at its next token."""
        self._waiting.fail_all(error)
        if self._active is not None:
            self._active.cancel(error)

    def _generate(self, job: Job) -> None:
        sequence = Sequence(job, self._text_model, Pace())
        ids = torch.tensor([sequence.tokens], device=self._device)
        if job.params.num_prompt_logprobs is not None:
            logits = self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
            sequence.score(logits, sequence.tokens[1:])
        sequence.finish_prompt()
        if job.has_ended:
            return
        choice = _OurChoice(sequence)
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=job.params.max_new_tokens,
            logits_processor=LogitsProcessorList([choice]),
            stopping_criteria=StoppingCriteriaList([_OurEnd(sequence, choice, self._check)]),
        )

    def _check(self, sequence: Sequence) -> None:
        """Between two tokens: let the owner act, and end what must end."""
        job = sequence.job
        self.between_tokens()
        now_s = time.monotonic()
        self._waiting.sweep(now_s)
        if not job.has_ended and (cause := job.stop_cause(now_s)) is not None:
            sequence.fail(cause)


class _OurChoice(LogitsProcessor):
    """Leaves only the token that our sampler chose, so that greedy ``generate`` takes it."""

    def __init__(self, sequence: Sequence):
        self._sequence = sequence
        self.logprob: TokenLogprob | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        [(token, self.logprob)] = choose(scores, [self._sequence.sampler])
        if token == UNSOUND:
            raise UnsoundLogitsError
        return torch.full_like(scores, -math.inf).index_fill_(1, torch.tensor([token], device=scores.device), 0.0)


class _OurEnd(StoppingCriteria):
    """Hands each token to the sequence and stops where its job has ended."""

    def __init__(self, sequence: Sequence, choice: _OurChoice, check: Callable[[Sequence], None]):
        self._sequence = sequence
        self._choice = choice
        self._check = check

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_kwargs: object) -> torch.Tensor:
        self._sequence.accept(int(input_ids[0, -1]), self._choice.logprob)
        self._check(self._sequence)
        return torch.tensor([self._sequence.job.has_ended], device=input_ids.device)
