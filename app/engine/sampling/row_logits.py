"""Changes to the logits of one row before anything is drawn: penalties, biases, bans, constraints.

Follows transformers' order of processors: bias, repetition penalty, (OpenAI's presence and
frequency penalties,) banned words, minimum length; then constraints. Inference thread only.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from app.core.work.sampling_params import Matcher, SamplingParams
from app.models.checkpoint.transfer import sent_whole


class ForcedTokens(Protocol):
    """What may leave no choice."""

    @property
    def forced(self) -> int | None:
        """The token that has to come next; None where any may."""

    def accept(self) -> None:
        """A token was chosen."""


class RowLogits:
    """The state that changes one sequence's logits; ``is_idle`` where nothing does."""

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: list[int],
        vocab_size: int,
        device: torch.device,
        end_ids: frozenset[int],
        matcher: Matcher | None,
        budget: ForcedTokens | None = None,
    ):
        self._params = params
        self._device = device
        self._matcher = matcher
        self._budget = budget
        self._end_ids = sorted(end_ids)
        self._num_generated = 0
        self._has_repetition = params.repetition_penalty != 1.0
        self._has_counts = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
        self._tokens = list(prompt_ids) if params.bad_words else []
        # All but what a grammar forbids.
        self.has_changes = bool(
            self._has_repetition
            or self._has_counts
            or params.logit_bias
            or params.bad_words
            or params.min_new_tokens
            or budget
        )
        self.is_idle = not (self.has_changes or matcher)
        if self._has_repetition:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(prompt_ids, device=device)] = True
        if self._has_counts:
            self._counts = torch.zeros(vocab_size, device=device)
        if params.logit_bias:
            self._bias_ids = torch.tensor([token for token, _ in params.logit_bias], device=device)
            self._bias = torch.tensor([bias for _, bias in params.logit_bias], device=device)

    def accept(self, token: int) -> None:
        """``token`` now belongs to the sequence."""
        self._num_generated += 1
        if self._has_repetition:
            self._seen[token] = True
        if self._has_counts:
            self._counts[token] += 1
        if self._params.bad_words:
            self._tokens.append(token)
        if self._matcher is not None:
            self._matcher.accept(token)
        if self._budget is not None:
            self._budget.accept()

    @property
    def matcher(self) -> Matcher | None:
        """What forbids tokens, of all rows at once (``grammar_masks``)."""
        return self._matcher

    def force(self, logits: torch.Tensor) -> None:
        """Behind all other changes: leave only the token that has to come next, if one has, in ``logits`` (vocab)."""
        if self._budget is not None and (token := self._budget.forced) is not None:
            logits.fill_(-math.inf)
            logits[token] = 0.0

    def apply(self, logits: torch.Tensor) -> None:
        """Change ``logits`` ``(vocab,)``, float32, in place; all but what a grammar forbids."""
        if self._params.logit_bias:
            logits.index_add_(0, self._bias_ids, self._bias)
        if self._has_repetition:
            self._penalise_repetition(logits)
        if self._has_counts:
            logits -= self._params.frequency_penalty * self._counts
            logits -= self._params.presence_penalty * (self._counts > 0)
        if banned := self._banned():
            logits[sent_whole(banned, self._device)] = -math.inf

    def _penalise_repetition(self, logits: torch.Tensor) -> None:
        """Divide positive and multiply negative logits of seen tokens (arXiv:1909.05858)."""
        penalty = self._params.repetition_penalty
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits.copy_(torch.where(self._seen, penalised, logits))

    def _banned(self) -> list[int]:
        """Tokens that would complete a bad word, or end the sequence before its minimum length."""
        banned = [word[-1] for word in self._params.bad_words if self._ends_with(word[:-1])]
        if self._num_generated < self._params.min_new_tokens:
            banned += self._end_ids
        return banned

    def _ends_with(self, start: tuple[int, ...]) -> bool:
        return not start or self._tokens[-len(start) :] == list(start)
