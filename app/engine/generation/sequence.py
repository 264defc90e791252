"""One job inside the engine: its tokens, its sampler, its text. Inference thread only."""

from __future__ import annotations

import math
import time

import torch

from app.core.errors import InvalidParameterError, RequestError
from app.core.work.job_events import FinishReason, PromptScored, TokenLogprob
from app.core.work.jobs import Job
from app.engine.generation.drafts.prompt_lookup import PromptLookup
from app.engine.guard import UnsoundLogitsError
from app.engine.sampling.row_logits import RowLogits
from app.engine.sampling.row_sampler import RowSampler
from app.engine.sampling.token_scores import logprobs
from app.engine.text.answer_gate import AnswerGate, Segment
from app.engine.text.reasoning_budget import ReasoningBudget
from app.engine.text.text_filter import Detokenizer, TextFilter
from app.engine.text.text_output import Pace, TextOutput
from app.models.tokens.generating_model import GeneratingModel


class Sequence:
    """A job that has a row. ``num_cached`` tokens from the front have their entries in the KV cache.

    ``begin``: what stands in front of the completion where that is not the prompt, as in a decoder that reads another
    text.
    """

    def __init__(self, job: Job, model: GeneratingModel, pace: Pace, *, begin: list[int] | None = None):
        params = job.params
        begin = job.prompt_ids if begin is None else begin
        self.job = job
        self.tokens = list(begin)
        self.num_cached = 0
        self.prompt_logprobs: list[TokenLogprob] = []
        self.end_ids = params.stop_token_ids | (frozenset() if params.ignore_eos else model.eos_ids)
        matcher = params.grammar.matcher(self.end_ids) if params.grammar else None
        self._matcher = matcher
        device = model.checkpoint.device
        self._gate = AnswerGate.of(params)
        self._budget = self._make_budget()
        logits = RowLogits(params, begin, model.vocab_size, device, self.end_ids, matcher, self._budget)
        self.sampler = RowSampler(params, logits)
        self.lookup: PromptLookup | None = None
        self._output = TextOutput(job, pace)
        self._detokenizer = Detokenizer(model.decoder(params.shown_tokens), begin)
        self._vocabulary = model.vocabulary
        self._filter = self._make_filter(model)

    def _make_budget(self) -> ReasoningBudget | None:
        limit = self.job.params.reasoning_limit
        if limit is None or self._gate is None:
            return None
        return ReasoningBudget(limit, is_thinking=self._gate.is_thinking)

    def _make_filter(self, model: GeneratingModel) -> TextFilter:
        """Patterns see whether the completion begins in the middle of a line; behind a control token it does not."""
        params, prompt = self.job.params, self.job.prompt_ids
        patterns = params.truncate_before_pattern
        before = self._detokenizer.before if params.text_before is None else params.text_before[-1:]
        if params.text_before is None and prompt and self._vocabulary.is_special(prompt[-1]):
            before = ""
        second = model.second_cuts if patterns else ()
        return TextFilter(params.stop, (*patterns, *second), before=before, num_second=len(second))

    @property
    def num_uncached(self) -> int:
        """Tokens that the model has not seen yet; 1 while decoding."""
        return len(self.tokens) - self.num_cached

    @property
    def is_scored(self) -> bool:
        """Whether log-probabilities of the prompt were asked for."""
        return self.job.params.num_prompt_logprobs is not None

    def take_prompt(self, tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
        """``tokens`` of the prompt are in the cache; keep their log-probabilities where they were asked for.

        Returns ``logits``, which are ``(1, vocab)``, or ``(len(tokens), vocab)`` where they are scored.
        """
        start = self.num_cached
        self.num_cached += len(tokens)
        if self.is_scored:
            targets = self.tokens[start + 1 : self.num_cached + 1]
            self.score(logits[: len(targets)], targets)
        return logits

    def score(self, logits: torch.Tensor, targets: list[int]) -> None:
        """Keep the log-probabilities of prompt tokens under ``logits`` ``(len(targets), vocab)``.

        Raises ``UnsoundLogitsError`` where those are no numbers.
        """
        if not targets:
            return
        scores = logprobs(logits, targets, self.job.params.num_prompt_logprobs or 0)
        if any(math.isnan(entry.logprob) for entry in scores):
            raise UnsoundLogitsError
        self.prompt_logprobs += scores

    def has_confirmed(self, draft: list[int], at: int) -> bool:
        """Whether the token that was just sampled is ``draft[at]``, which was fed next."""
        return not self.job.has_ended and at < len(draft) and self.tokens[-1] == draft[at]

    def draft(self, most: int) -> list[int]:
        """Tokens that may come next, at most ``most``; none that could not be accepted any more."""
        if self.lookup is None:
            return []
        num_left = self.job.params.max_new_tokens - self.job.usage.completion_tokens
        return self.lookup.draft(max(min(most, num_left - 1), 0))

    @property
    def draft_rate(self) -> float:
        """The share of a draft that is expected to be right."""
        return 0.0 if self.lookup is None else self.lookup.record.rate

    def note_draft(self, num_guessed: int, num_right: int) -> None:
        """Its last draft had so many tokens, and so many of them were right."""
        if self.lookup is not None:
            self.lookup.record.note(num_guessed, num_right)

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Take the sampled ``token``: emit the text it completes, end the job where it must end."""
        if self._matcher is not None and (failure := self._matcher.failure) is not None:
            self.fail(failure)
            return
        self.job.count_token()
        scores = () if logprob is None else (logprob,)
        if token in self.end_ids:
            self._end("stop", scores)
            return
        self.tokens.append(token)
        self.sampler.accept(token)
        self._write(token, scores)
        is_last = self.job.usage.completion_tokens >= self.job.params.max_new_tokens
        if is_last and not self.job.has_ended:
            self._end("length")

    def _write(self, token: int, scores: tuple[TokenLogprob, ...]) -> None:
        text, is_stopped = self._parted(self._detokenizer.push(token))
        is_unseen = self._vocabulary.is_special(token) and token not in self.job.params.shown_tokens
        is_inside = self._gate is not None and self._gate.is_inside
        if not is_stopped and self.job.params.stop and is_unseen and not is_inside:
            rest, is_stopped = self._filter.push_special(self._vocabulary.token_bytes(token).decode())
            text += rest
        self._output.add(text, scores)
        if is_stopped:
            self._finish("stop", is_cut=True)
        elif self._filter.is_too_slow:
            text = "truncate_before_pattern: these patterns take too long"
            self.fail(InvalidParameterError(text, param="truncate_before_pattern"))
        elif "\n" in text and self._is_past_line_limit():
            self._end("length")

    def _parted(self, text: str) -> tuple[str, bool]:
        """What of ``text``, which a token brought, can go out, and whether a stop string ends the answer."""
        gate = self._gate
        if gate is None:
            return self._filter.push(text)
        was_thinking, segments = gate.is_thinking, gate.push(text)
        # Without stop strings it only tells how long the model thinks.
        found = self._filtered(segments) if self.job.params.stop else self._filter.push(text)
        num_tokens = self.job.count_reasoning() if was_thinking or gate.is_thinking else 0
        if self._budget is not None:
            self._budget.note(num_tokens, is_thinking=gate.is_thinking, is_whole=self._detokenizer.is_whole)
        if not (self.job.params.stop or gate.can_think):
            self._gate = None
        return found

    def _filtered(self, segments: list[Segment]) -> tuple[str, bool]:
        out = ""
        for segment in segments:
            if not segment.is_content:
                out += self._filter.pass_by(segment.text)
                continue
            text, is_stopped = self._filter.push(segment.text)
            out += text
            if is_stopped:
                return out, True
        return out, False

    def _is_past_line_limit(self) -> bool:
        limit_s, first_s = self.job.params.line_limit_s, self.job.timings.first_token_s
        return limit_s is not None and first_s is not None and time.monotonic() - first_s > limit_s

    def finish_prompt(self) -> None:
        """The whole prompt is in the cache: hand out its scores; end where nothing is to be generated."""
        if self.job.params.num_prompt_logprobs is not None:
            self.job.emit(PromptScored(tuple(self.prompt_logprobs)))
        if self.job.params.max_new_tokens == 0:
            self.job.finish("length")

    def end_by_length(self) -> None:
        """No more tokens will come; harmless where the job has ended."""
        if not self.job.has_ended:
            self._end("length")

    def fail(self, error: RequestError) -> None:
        """End the job with ``error``, after the text that it has; by length where that is what its time is for."""
        if self.job.has_ended:
            return
        if self.job.is_ended_by(error):
            self._end("length")
            return
        self._output.flush()
        self.job.fail(error)

    def _end(self, reason: FinishReason, scores: tuple[TokenLogprob, ...] = ()) -> None:
        text = self._detokenizer.flush()
        if self._gate is None or not self.job.params.stop:
            text, is_stopped = self._filter.push(text)
        else:
            text, is_stopped = self._filtered([*self._gate.push(text), *self._gate.finish()])
        if not is_stopped:
            rest, is_stopped = self._filter.finish()
            text += rest
        self._output.add(text, scores)
        self._finish("stop" if is_stopped else reason, is_cut=is_stopped)

    def _finish(self, reason: FinishReason, *, is_cut: bool = False) -> None:
        self._output.flush()
        self.job.finish(reason, is_cut=is_cut, stop=self._filter.stopped_by)
