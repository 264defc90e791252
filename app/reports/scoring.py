"""How two ways to compute the same model differ: perplexity, divergence, agreement. Figures only, no models.

Logits ``(positions, vocab)`` of one window at a time; arithmetic in double precision, in slices,
since one window of a large vocabulary takes hundreds of megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

SLICE_POSITIONS = 32


@dataclass
class Tally:
    """Sums over the windows of one text; ``targets`` are the tokens that follow each position."""

    num_tokens: int = 0
    nll: float = 0.0
    divergences: list[float] = field(default_factory=list)
    num_equal_top: int = 0

    def add(self, logits: torch.Tensor, targets: torch.Tensor, baseline: torch.Tensor | None) -> None:
        """Count one window; ``baseline`` holds the other side's logits of the same positions."""
        for start in range(0, logits.shape[0], SLICE_POSITIONS):
            part = slice(start, start + SLICE_POSITIONS)
            logprobs = logits[part].double().log_softmax(-1)
            self.num_tokens += logprobs.shape[0]
            self.nll -= float(logprobs.gather(1, targets[part, None]).sum())
            if baseline is not None:
                self._compare(baseline[part].double().log_softmax(-1), logprobs)

    def _compare(self, expected: torch.Tensor, found: torch.Tensor) -> None:
        # What the baseline holds impossible adds nothing: 0 x log 0 counts as 0.
        terms = torch.where(expected.isneginf(), 0.0, expected.exp() * (expected - found))
        self.divergences += terms.sum(-1).clamp(min=0).tolist()
        self.num_equal_top += int((expected.argmax(-1) == found.argmax(-1)).sum())

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood in nats; infinite where that overflows."""
        mean = self.nll / self.num_tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def mean_kl(self) -> float:
        """Mean over positions of KL(baseline || this), in nats."""
        return math.fsum(self.divergences) / len(self.divergences)

    @property
    def max_kl(self) -> float:
        """The worst position's divergence, in nats."""
        return max(self.divergences)

    @property
    def top1_agreement(self) -> float:
        """Share of positions whose likeliest token is the same."""
        return self.num_equal_top / len(self.divergences)


def windows(ids: Sequence[int], window_tokens: int, num_tokens: int) -> list[list[int]]:
    """Neighbouring pieces of ``window_tokens`` ids, ``num_tokens`` in all; a last piece of one id predicts nothing."""
    kept = list(ids[:num_tokens])
    pieces = [kept[start : start + window_tokens] for start in range(0, len(kept), window_tokens)]
    return [piece for piece in pieces if len(piece) > 1]


def num_positions(pieces: Sequence[Sequence[int]]) -> int:
    """Predicted tokens of all windows."""
    return sum(1 for piece in pieces for _ in pairwise(piece))
