"""Filters on the tokens that may be drawn: temperature, top_k, top_p, min_p, typical_p.

Vectorised over rows; semantics and order are those of transformers' warpers. Inference thread.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from app.engine.sampling.row_wishes import RowWishes

# Candidates that are sorted first; the whole vocabulary only where they cannot decide.
# A full sort of 150,000 entries takes 3 ms on a CPU, ten times as long as the best 1,024 of them.
NUM_CANDIDATES = 1024
SIGN_BIT = np.int32(31)
ALL_BUT_SIGN = np.int32(0x7FFFFFFF)


def filter_unordered(logits: torch.Tensor, wishes: RowWishes) -> torch.Tensor:
    """Scaled logits ``(rows, vocab)`` with what ``min_p`` drops at -inf; needs no sorting."""
    logits = logits / wishes.column("temperature", logits)
    if all(row.min_p == 0.0 for row in wishes.params):
        return logits
    return logits.masked_fill(logits < _floor(logits.amax(dim=-1, keepdim=True), wishes), -math.inf)


def filter_ordered(logits: torch.Tensor, wishes: RowWishes) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled logits of the best tokens, best first, what is dropped at -inf; and their ids.

    Both ``(rows, num_candidates)``. On a GPU the number of candidates is known before: to ask whether they decide would
    wait for the device. Of equal logits ``top_k`` keeps no more than those there.
    """
    logits = logits / wishes.column("temperature", logits)
    if reads_wait(logits):
        are_few = all(0 < row.top_k <= NUM_CANDIDATES for row in wishes.params)
        best, ids = logits.topk(min(NUM_CANDIDATES, logits.shape[-1]) if are_few else logits.shape[-1], dim=-1)
        return _typical(_kept(best, logits, wishes)[0], wishes), ids
    for num_candidates in (NUM_CANDIDATES, logits.shape[-1]):
        if num_candidates <= logits.shape[-1]:
            best, ids = largest(logits, num_candidates)
            kept, is_open = _kept(best, logits, wishes)
            if is_open is None or not bool(is_open.any()):
                return _typical(kept, wishes), ids
    raise AssertionError("the whole vocabulary always decides")


def reads_wait(logits: torch.Tensor) -> bool:
    """Whether to read a number of them would wait for a device."""
    return logits.device.type != "cpu"


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


def _kept(best: torch.Tensor, logits: torch.Tensor, wishes: RowWishes) -> tuple[torch.Tensor, torch.Tensor | None]:
    """``best`` after top_k, top_p and min_p; and for which rows it holds too few tokens to decide, None: for none."""
    vocab_size, num_candidates = logits.shape[-1], best.shape[-1]
    limits = wishes.limits
    weakest = best.gather(1, limits.clamp(max=num_candidates) - 1)
    has_limit = limits < vocab_size
    limited = torch.where(has_limit & (best < weakest), -math.inf, best)
    total = torch.where(has_limit, limited.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True))
    through = (limited - total).exp().cumsum(-1)
    top_p = wishes.column("top_p", logits)
    is_open = None
    if num_candidates < vocab_size:
        is_tied = has_limit & (best[:, -1:] >= weakest)
        is_short = ~has_limit & (through[:, -1:] < top_p)
        is_open = is_tied | is_short
    # transformers sums from the least token up; from the top, a token stays while the mass before it is below top_p.
    dropped = through - (limited - total).exp() >= top_p
    dropped.select(1, 0).fill_(False)
    return limited.masked_fill(dropped | (limited < _floor(best[:, :1], wishes)), -math.inf), is_open


def _typical(logits: torch.Tensor, wishes: RowWishes) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, up to a mass of typical_p (arXiv:2202.00666)."""
    if all(row.typical_p >= 1.0 for row in wishes.params):
        return logits
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    entropy = -(log_probabilities * probabilities).nansum(-1, keepdim=True)
    distance, order = (-log_probabilities - entropy).abs().sort(dim=-1)
    mass = wishes.column("typical_p", logits)
    last = (probabilities.gather(1, order).cumsum(-1) < mass).sum(-1, keepdim=True)
    limit = distance.gather(1, last.clamp_(max=logits.shape[-1] - 1))
    is_far = (-log_probabilities - entropy).abs() > limit
    return logits.masked_fill(is_far & (mass < 1.0), -math.inf)


def _floor(best: torch.Tensor, wishes: RowWishes) -> torch.Tensor:
    """The least logit that ``min_p`` keeps, given the best one of each row ``(rows, 1)``."""
    return best + wishes.column("log_min_p", best)
