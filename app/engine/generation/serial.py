"""Serial generation through transformers' own ``generate``, for models that our KV cache cannot serve.

Recurrent states, encoder-decoder models and remote code keep caches of their own.
The contract is that of the batched engine: our sampler chooses each token (as the only logit that is left),
our sequence ends the job, deadlines and cancellation count at every token. ``generate`` runs as a producer
that gives one token per step. Inference thread only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from app.core.errors import InternalError, RequestError
from app.core.work.job_events import TokenLogprob
from app.core.work.jobs import Job
from app.engine.engine_interface import QueuedEngine
from app.engine.generation.sequence import Sequence
from app.engine.generation.stepped_work import SteppedWork
from app.engine.guard import UnsoundLogitsError
from app.engine.sampling.pending_tokens import UNSOUND
from app.engine.sampling.sampler import choose
from app.engine.text.text_output import Pace
from app.models.text_model import TextModel
from app.models.tokens.token_positions import plain_positions
from app.models.weights.adapters.adapter_bank import AdapterBank


@dataclass(frozen=True, slots=True)
class Active:
    """The sequence that runs, and the ``generate`` that runs it."""

    sequence: Sequence
    generation: SteppedWork


class SerialEngine(QueuedEngine[Job]):
    """Runs one job after another through ``model.generate``."""

    def __init__(self, text_model: TextModel):
        super().__init__(text_model.checkpoint.device)
        self._text_model = text_model
        self._active: Active | None = None
        self._adapters: AdapterBank | None = None
        # Ends and penalties are ours: the checkpoint's own would be applied a second time.
        text_model.checkpoint.model.generation_config = GenerationConfig(pad_token_id=text_model.pad_id)

    def use_adapters(self, adapters: AdapterBank) -> None:
        """Have ``adapters`` change the model for the jobs that bring one."""
        self._adapters = adapters

    @property
    def has_work(self) -> bool:
        return len(self._waiting) > 0 or self._active is not None

    def step(self, *, is_shared: bool = False) -> None:
        """Bring the job that runs, or the next one, forward by a token; that is as short as steps get here."""
        now_s = time.monotonic()
        self._waiting.sweep(now_s)
        if self._active is not None and (cause := self._active.sequence.job.stop_cause(now_s)) is not None:
            self._end(self._active, cause)
        if self._active is None and len(self._waiting) > 0:
            self._active = self._start(self._waiting.start_next())
        if self._active is not None:
            self._advance(self._active)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        self._waiting.fail_all(error)
        if self._active is not None:
            self._end(self._active, error)

    def _start(self, job: Job) -> Active | None:
        """None where the sequence cannot be made, which ends the job."""
        sequence = self.guard.run([job], partial(Sequence, job, self._text_model, Pace()))
        if sequence is None:
            job.fail(InternalError())
            return None
        # Not a method of ours: what the producer holds would hold the engine, and nobody could let go of both.
        work = partial(generate, self._text_model, sequence)
        return Active(sequence, SteppedWork(work, torch.inference_mode))

    def _advance(self, active: Active) -> None:
        job = active.sequence.job
        if not self.guard.run([job], partial(self._advanced, active)):
            self._active = None
            if not job.has_ended:
                active.sequence.fail(InternalError())

    def _advanced(self, active: Active) -> bool:
        if self._adapters is None:
            return active.generation.advance()
        with self._adapters.rows([(active.sequence.job.adapter, 1)]):
            return active.generation.advance()

    def _end(self, active: Active, error: RequestError) -> None:
        self._active = None
        active.sequence.fail(error)
        active.generation.abandon()


def generate(text_model: TextModel, sequence: Sequence, pause: Callable[[], None]) -> None:
    """Run ``sequence`` to its end by the model's ``generate``; ``pause`` is called behind all tokens but the last."""
    model, job = text_model.checkpoint.model, sequence.job
    ids = torch.tensor([sequence.tokens], device=text_model.checkpoint.device)
    if job.params.num_prompt_logprobs is not None:
        options = {"attention_mask": torch.ones_like(ids), "use_cache": False, **plain_positions(model, ids)}
        logits = model(input_ids=ids, **options).logits[0, :-1]
        sequence.score(logits, sequence.tokens[1:])
    sequence.finish_prompt()
    if job.has_ended:
        return
    choice = OurChoice(sequence)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=job.params.max_new_tokens,
        logits_processor=LogitsProcessorList([choice]),
        stopping_criteria=StoppingCriteriaList([OurEnd(sequence, choice, pause)]),
    )


class OurChoice(LogitsProcessor):
    """Leaves only the token that our sampler chose, so that greedy ``generate`` takes it."""

    def __init__(self, sequence: Sequence):
        self._sequence = sequence
        self.logprob: TokenLogprob | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._sequence.job.has_ended:
            # On a GPU transformers 5.24 looks at the end of a step when the next one is under way.
            return scores
        [(token, self.logprob)] = choose(scores, [self._sequence.sampler])
        if token == UNSOUND:
            raise UnsoundLogitsError
        return torch.full_like(scores, -math.inf).index_fill_(1, torch.tensor([token], device=scores.device), 0.0)


class OurEnd(StoppingCriteria):
    """Hands each token to the sequence, stops where its job has ended, and waits where it goes on."""

    def __init__(self, sequence: Sequence, choice: OurChoice, pause: Callable[[], None]):
        self._sequence = sequence
        self._choice = choice
        self._pause = pause

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_kwargs: object) -> torch.Tensor:
        job = self._sequence.job
        if not job.has_ended:
            self._sequence.accept(int(input_ids[0, -1]), self._choice.logprob)
        if not job.has_ended:
            self._pause()
        return torch.tensor([job.has_ended], device=input_ids.device)
