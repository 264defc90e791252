"""Log-probabilities of tokens and of the best ones, in one transfer. Inference thread only."""

from __future__ import annotations

import numpy as np
import torch

from app.core.work.job_events import TokenLogprob
from app.models.checkpoint.transfer import sent


def logprobs(logits: torch.Tensor, tokens: list[int], num_top: int) -> list[TokenLogprob]:
    """Log-probability of ``tokens`` under ``logits`` ``(len(tokens), vocab)``, with the ``num_top`` best.

    One transfer to the host.
    """
    scores = scores_of(logits, sent(np.array(tokens), logits.device), num_top).tolist()
    return [entry_of(token, numbers, num_top) for token, numbers in zip(tokens, scores, strict=True)]


def scores_of(logits: torch.Tensor, tokens: torch.Tensor, num_top: int) -> torch.Tensor:
    """Log-probabilities of ``tokens`` ``(rows,)`` and of the best ones, and those' ids; ``(rows, ..)`` float64."""
    scores = logits.float().log_softmax(dim=-1)
    best, ids = scores.topk(min(num_top, scores.shape[-1]), dim=-1)
    return torch.cat([scores.gather(1, tokens[:, None]).double(), best.double(), ids.double()], 1)


def entry_of(token: int, numbers: list[float], num_top: int) -> TokenLogprob:
    """One row of ``scores_of``, with the ``num_top`` best of those that it has."""
    num_best = len(numbers) // 2
    values, ids = numbers[1 : 1 + num_best][:num_top], map(int, numbers[1 + num_best :][:num_top])
    return TokenLogprob(token, numbers[0], tuple(zip(ids, values, strict=True)))
