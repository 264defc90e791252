"""The few sizes that steps are padded to, and the numbers of a step on their way into memory of such a size.

Inference thread only.
"""

from __future__ import annotations

from bisect import bisect_left

import torch

from app.engine.runners.graphs.fed import Fed
from app.models.checkpoint.transfer import Staged


def send_with_tokens(staged: Staged, tokens: Fed, count: int) -> None:
    """Send ``staged``, whose first row has the first token of each of ``count`` rows; on the device where they are."""
    if not isinstance(tokens, torch.Tensor):
        staged.on_host[0, :count] = [row[0] for row in tokens]
        staged.send()
        return
    staged.send()
    staged.on_device[0, :count] = tokens[:, 0]


def powers_of_two(first: int, last: int) -> list[int]:
    """``first``, twice that, .. below ``last``, and ``last`` itself."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]


def smallest(sizes: list[int], needed: int) -> int:
    """The smallest of ``sizes`` (ascending) that holds ``needed``."""
    return sizes[bisect_left(sizes, needed)]
