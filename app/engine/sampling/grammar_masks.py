"""What grammars forbid, in the logits of all rows that follow one, at once. Inference thread only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from app.core.work.sampling_params import Matcher


def forbid(logits: torch.Tensor, matchers: Mapping[int, Matcher]) -> torch.Tensor:
    """``logits`` ``(num_rows, vocab)``, with what the matchers forbid in their rows at -inf; in memory of its own.

    A row whose matcher has failed stays as it is.
    """
    if not matchers:
        return logits
    vocab_size = logits.shape[1]
    num_bytes = (vocab_size + 7) // 8
    found = {i: bits for i, matcher in matchers.items() if (bits := matcher.allowed(num_bytes)) is not None}
    if not found:
        return logits
    allowed = np.frombuffer(b"".join(found.values()), dtype=np.uint8).reshape(len(found), num_bytes)
    is_forbidden = np.unpackbits(~allowed, axis=1, count=vocab_size, bitorder="little").view(np.bool_)
    mask = torch.from_numpy(is_forbidden).to(logits.device)
    if len(found) == len(logits):
        return logits.masked_fill(mask, -math.inf)
    rows = torch.tensor(list(found), device=logits.device)
    return logits.index_copy(0, rows, logits[rows].masked_fill_(mask, -math.inf))
