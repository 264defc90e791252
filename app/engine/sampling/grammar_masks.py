"""What grammars forbid, in the logits of all rows that follow one: one change for all. Inference thread only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from app.core.work.sampling_params import Matcher


def forbid(logits: torch.Tensor, matchers: Mapping[int, Matcher]) -> None:
    """Set what the matchers forbid in their rows of ``logits`` ``(num_rows, vocab)`` to -inf, in place.

    A row whose matcher has failed stays as it is.
    """
    if not matchers:
        return
    vocab_size = logits.shape[1]
    num_bytes = (vocab_size + 7) // 8
    found = {i: bits for i, matcher in matchers.items() if (bits := matcher.allowed(num_bytes)) is not None}
    if not found:
        return
    allowed = np.frombuffer(b"".join(found.values()), dtype=np.uint8).reshape(len(found), num_bytes)
    is_forbidden = np.unpackbits(~allowed, axis=1, count=vocab_size, bitorder="little").view(np.bool_)
    mask = torch.from_numpy(is_forbidden).to(logits.device)
    if len(found) == len(logits):
        logits.masked_fill_(mask, -math.inf)
        return
    rows = torch.tensor(list(found), device=logits.device)
    logits[rows] = logits[rows].masked_fill_(mask, -math.inf)
