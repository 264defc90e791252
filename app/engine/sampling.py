"""Chooses the next token of every row from its logits. Inference thread only.

Order and meaning follow transformers: repetition penalty, then temperature, top_k, top_p, min_p.
Rows are independent: the random numbers of a row come from its own seed, so that what else is in
the batch changes nothing.
"""

from __future__ import annotations

import math
import random

import torch

from app.core.jobs import SamplingParams

# Candidates that are sorted first; the whole vocabulary only where their mass does not reach top_p.
# A full sort of 150,000 entries takes about 10 ms on a CPU.
NUM_CANDIDATES = 1024


class RowSampler:
    """Sampling state of one sequence: its parameters, random numbers and the tokens it has seen."""

    def __init__(self, params: SamplingParams, prompt_ids: list[int], vocab_size: int, device: torch.device):
        self.params = params
        self.is_greedy = params.temperature == 0.0
        self.has_penalty = params.repetition_penalty != 1.0
        self.is_plain = self.is_greedy and not self.has_penalty
        self.needs_order = params.top_k > 0 or params.top_p < 1.0
        self._random = random.Random(params.seed)
        if self.has_penalty:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self.seen[torch.tensor(prompt_ids, device=device)] = True

    def uniform(self) -> float:
        """The next random number in [0, 1) of this sequence."""
        return self._random.random()

    def accept(self, token: int) -> None:
        """``token`` now belongs to the sequence."""
        if self.has_penalty:
            self.seen[token] = True


def sample(logits: torch.Tensor, rows: list[RowSampler]) -> list[int]:
    """Next token per row from ``logits`` ``(num_rows, vocab)``, any float dtype."""
    if all(row.is_plain for row in rows):
        return logits.argmax(dim=-1).tolist()
    logits = logits.float().clone()
    _penalise(logits, rows)
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for needs_order, draw in ((False, _draw_unordered), (True, _draw_ordered)):
        chosen = [i for i, row in enumerate(rows) if not row.is_greedy and row.needs_order == needs_order]
        if chosen:
            drawn = draw(logits[chosen], [rows[i] for i in chosen])
            for i, token in zip(chosen, drawn, strict=True):
                tokens[i] = token
    return tokens


def _penalise(logits: torch.Tensor, rows: list[RowSampler]) -> None:
    """Divide positive and multiply negative logits of seen tokens (arXiv:1909.05858), in place."""
    for row_logits, row in zip(logits, rows, strict=True):
        if row.has_penalty:
            penalty = row.params.repetition_penalty
            penalised = torch.where(row_logits > 0, row_logits / penalty, row_logits * penalty)
            row_logits.copy_(torch.where(row.seen, penalised, row_logits))


def _draw_unordered(logits: torch.Tensor, rows: list[RowSampler]) -> list[int]:
    """Draw from the whole vocabulary in id order; ``min_p`` needs no sorting."""
    logits = logits / _column([row.params.temperature for row in rows], logits)
    floor = logits.amax(dim=-1, keepdim=True) + _column([_log(row.params.min_p) for row in rows], logits)
    return _draw(logits.masked_fill(logits < floor, -math.inf), rows).tolist()


def _draw_ordered(logits: torch.Tensor, rows: list[RowSampler]) -> list[int]:
    """Draw from the best tokens in order of probability, after top_k, top_p and min_p."""
    logits = logits / _column([row.params.temperature for row in rows], logits)
    num_candidates = min(NUM_CANDIDATES, logits.shape[-1])
    kept, ids = _filtered(logits, rows, num_candidates)
    if kept is None:
        kept, ids = _filtered(logits, rows, logits.shape[-1])
    assert kept is not None
    return ids.gather(1, _draw(kept, rows)[:, None])[:, 0].tolist()


def _filtered(
    logits: torch.Tensor, rows: list[RowSampler], num_candidates: int
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The best logits in falling order with what is filtered out at -inf, and their ids.

    None instead of logits where ``num_candidates`` are too few to decide.
    """
    best, ids = logits.topk(num_candidates, dim=-1)
    limits = [min(row.params.top_k or logits.shape[-1], logits.shape[-1]) for row in rows]
    at = torch.tensor([min(limit, num_candidates) - 1 for limit in limits], device=logits.device)
    weakest = best.gather(1, at[:, None])
    is_top_k = torch.tensor([limit < logits.shape[-1] for limit in limits], device=logits.device)[:, None]
    best_k = torch.where(is_top_k & (best < weakest), -math.inf, best)
    total = torch.where(is_top_k, best_k.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True))
    probabilities = (best_k - total).exp()
    before = probabilities.cumsum(-1) - probabilities
    top_p = _column([row.params.top_p for row in rows], logits)
    if num_candidates < logits.shape[-1]:
        is_tied = is_top_k & (best[:, -1:] >= weakest)
        is_short = ~is_top_k & ((before + probabilities)[:, -1:] < top_p)
        if bool((is_tied | is_short).any()):
            return None, ids
    # As transformers counts, but from the top: a token stays while the mass before it is below top_p.
    dropped = before >= top_p
    dropped[:, 0] = False
    floor = best[:, :1] + _column([_log(row.params.min_p) for row in rows], logits)
    return best_k.masked_fill(dropped | (best_k < floor), -math.inf), ids


def _draw(logits: torch.Tensor, rows: list[RowSampler]) -> torch.Tensor:
    """One index per row by inverting the cumulative distribution, ``(num_rows,)``."""
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    target = _column([row.uniform() for row in rows], cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
