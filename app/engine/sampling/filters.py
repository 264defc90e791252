"""Filters on the tokens that may be drawn: temperature, top_k, top_p, min_p, typical_p.

Vectorised over rows; semantics and order are those of transformers' warpers. Inference thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from app.core.work.sampling_params import SamplingParams

# Candidates that are sorted first; the whole vocabulary only where they cannot decide.
# A full sort of 150,000 entries takes 3 ms on a CPU, ten times as long as the best 1,024 of them.
NUM_CANDIDATES = 1024
SIGN_BIT = np.int32(31)
ALL_BUT_SIGN = np.int32(0x7FFFFFFF)


def needs_order(params: SamplingParams) -> bool:
    """Whether tokens must be sorted by probability to filter them."""
    return params.top_k > 0 or params.top_p < 1.0 or params.typical_p < 1.0


def filter_unordered(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Scaled logits ``(rows, vocab)`` with what ``min_p`` drops at -inf; needs no sorting."""
    logits = scaled(logits, params)
    if all(row.min_p == 0.0 for row in params):
        return logits
    return logits.masked_fill(logits < _floor(logits.amax(dim=-1, keepdim=True), params), -math.inf)


def filter_ordered(logits: torch.Tensor, params: Sequence[SamplingParams]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled logits of the best tokens, best first, what is dropped at -inf; and their ids.

    Both ``(rows, num_candidates)``.
    """
    logits = scaled(logits, params)
    for num_candidates in (NUM_CANDIDATES, logits.shape[-1]):
        if num_candidates <= logits.shape[-1]:
            best, ids = largest(logits, num_candidates)
            kept = _kept(best, logits, params)
            if kept is not None:
                return _typical(kept, params), ids
    raise AssertionError("the whole vocabulary always decides")


def largest(logits: torch.Tensor, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``num`` largest float32 entries of each row, largest first, and their ids; both ``(rows, num)``.

    On a CPU by numpy, which sorts with vector instructions: 1,024 of ``(1, 151936)`` in 0.5 ms, all of them
    in 2.6, where ``topk`` of torch 2.13 takes 0.9 and 11 (two threads, AVX-512). Equal entries go by id there,
    whatever ``num`` is and whatever else is in the batch, so that a seed gives the same text.
    """
    if logits.device.type != "cpu":
        return logits.topk(num, dim=-1)
    # Not negated: 0 and -0 are equal.
    found = torch.from_numpy(np.stack([_least(row, num) for row in 0 - logits.numpy()]))
    return logits.gather(1, found), found


def _least(row: np.ndarray, num: int) -> np.ndarray:
    """Positions ``(num,)`` of the least entries of a float32 ``row``, least first, equal ones by position."""
    is_part = num < len(row)
    at = np.flatnonzero(~(row > np.partition(row, num - 1)[num - 1])) if is_part else np.arange(num)
    bits = row[at].view(np.int32)
    # The bits of negative floats grow with their size; turned over, all bits are in the floats' order.
    keys = (bits ^ ((bits >> SIGN_BIT) & ALL_BUT_SIGN)).astype(np.int64) << 32 | at
    keys.sort()
    positions: np.ndarray = keys[:num] & 0xFFFFFFFF
    return positions


def scaled(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Logits divided by each row's temperature."""
    return logits / column([row.temperature for row in params], logits)


def column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """``values`` as ``(rows, 1)`` with the dtype and device of ``like``."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _kept(best: torch.Tensor, logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor | None:
    """``best`` after top_k, top_p and min_p; None where it holds too few tokens to decide."""
    vocab_size, num_candidates = logits.shape[-1], best.shape[-1]
    limits = [min(row.top_k or vocab_size, vocab_size) for row in params]
    last = torch.tensor([[min(limit, num_candidates) - 1] for limit in limits], device=logits.device)
    weakest = best.gather(1, last)
    has_limit = torch.tensor([[limit < vocab_size] for limit in limits], device=logits.device)
    limited = torch.where(has_limit & (best < weakest), -math.inf, best)
    total = torch.where(has_limit, limited.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True))
    through = (limited - total).exp().cumsum(-1)
    top_p = column([row.top_p for row in params], logits)
    if num_candidates < vocab_size:
        is_tied = has_limit & (best[:, -1:] >= weakest)
        is_short = ~has_limit & (through[:, -1:] < top_p)
        if bool((is_tied | is_short).any()):
            return None
    # transformers sums from the least token up; from the top, a token stays while the mass before it is below top_p.
    dropped = through - (limited - total).exp() >= top_p
    dropped[:, 0] = False
    return limited.masked_fill(dropped | (limited < _floor(best[:, :1], params)), -math.inf)


def _typical(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, up to a mass of typical_p (arXiv:2202.00666)."""
    if all(row.typical_p >= 1.0 for row in params):
        return logits
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    entropy = -(log_probabilities * probabilities).nansum(-1, keepdim=True)
    distance, order = (-log_probabilities - entropy).abs().sort(dim=-1)
    mass = column([row.typical_p for row in params], logits)
    last = (probabilities.gather(1, order).cumsum(-1) < mass).sum(-1, keepdim=True)
    limit = distance.gather(1, last.clamp_(max=logits.shape[-1] - 1))
    is_far = (-log_probabilities - entropy).abs() > limit
    return logits.masked_fill(is_far & (mass < 1.0), -math.inf)


def _floor(best: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """The least logit that ``min_p`` keeps, given the best one of each row ``(rows, 1)``."""
    return best + column([math.log(row.min_p) if row.min_p > 0 else -math.inf for row in params], best)
