"""Chooses the next token of every row from its logits. Inference thread only.

Rows are independent: the random numbers of a row come from its own seed, so that what else is in
the batch changes nothing.
"""

from __future__ import annotations

import random

import torch

from app.core.jobs import SamplingParams, TokenLogprob
from app.engine.filters import column, filter_ordered, filter_unordered, needs_order
from app.engine.logits import RowLogits


class RowSampler:
    """Sampling state of one sequence: its parameters, its random numbers, what changes its logits."""

    def __init__(self, params: SamplingParams, logits: RowLogits):
        self.params = params
        self.logits = logits
        self.is_greedy = params.temperature == 0.0
        self.is_plain = self.is_greedy and logits.is_idle
        self.needs_order = needs_order(params)
        self._random = random.Random(params.seed)

    def uniform(self) -> float:
        """The next random number in [0, 1) of this sequence."""
        return self._random.random()

    def accept(self, token: int) -> None:
        """``token`` now belongs to the sequence."""
        if not self.logits.is_idle:
            self.logits.accept(token)


def sample(logits: torch.Tensor, rows: list[RowSampler]) -> list[int]:
    """Next token per row from ``logits`` ``(num_rows, vocab)``, any float dtype; one transfer to the host."""
    tokens: list[int] = _sampled(logits, rows).tolist()
    return tokens


def _sampled(logits: torch.Tensor, rows: list[RowSampler]) -> torch.Tensor:
    """Next token per row ``(num_rows,)``, on the device of ``logits``."""
    if all(row.is_plain for row in rows):
        return logits.argmax(dim=-1)
    logits = logits.float().clone()
    for row_logits, row in zip(logits, rows, strict=True):
        if not row.logits.is_idle:
            row.logits.apply(row_logits)
    tokens = logits.argmax(dim=-1)
    for is_ordered in (False, True):
        chosen = [i for i, row in enumerate(rows) if not row.is_greedy and row.needs_order == is_ordered]
        if chosen:
            tokens[chosen] = _draw_rows(logits[chosen], [rows[i] for i in chosen], is_ordered)
    return tokens


def logprobs(logits: torch.Tensor, tokens: list[int], num_top: int) -> list[TokenLogprob]:
    """Log-probability of ``tokens`` under ``logits`` ``(len(tokens), vocab)``, with the ``num_top`` best.

    One transfer to the host: float64 holds every float32 and every id exactly.
    """
    scores = logits.float().log_softmax(dim=-1)
    chosen = scores.gather(1, torch.tensor(tokens, device=scores.device)[:, None])
    best, ids = scores.topk(min(num_top, scores.shape[-1]), dim=-1)
    entries = []
    for token, row in zip(tokens, torch.cat([chosen.double(), best.double(), ids.double()], 1).tolist(), strict=True):
        values, top_ids = row[1 : best.shape[1] + 1], map(int, row[best.shape[1] + 1 :])
        entries.append(TokenLogprob(token, row[0], tuple(zip(top_ids, values, strict=True))))
    return entries


def _draw_rows(logits: torch.Tensor, rows: list[RowSampler], is_ordered: bool) -> torch.Tensor:
    params = [row.params for row in rows]
    uniforms = [row.uniform() for row in rows]
    if not is_ordered:
        return draw(filter_unordered(logits, params), uniforms)
    kept, ids = filter_ordered(logits, params)
    return ids.gather(1, draw(kept, uniforms)[:, None])[:, 0]


def draw(logits: torch.Tensor, uniforms: list[float]) -> torch.Tensor:
    """One index per row, by inverting the cumulative distribution at ``uniforms``; ``(num_rows,)``."""
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    target = column(uniforms, cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
