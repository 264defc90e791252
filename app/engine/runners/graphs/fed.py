"""The tokens that rows are fed: numbers of the host, or what was drawn on the device and read by nobody yet.

Inference thread only.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

# As many for each row; on the device one for each, ``(num_rows, 1)``.
Fed: TypeAlias = list[list[int]] | torch.Tensor


def as_lists(tokens: Fed) -> list[list[int]]:
    """Numbers of the host, for passes that are made from those: it may have to be waited for them."""
    if isinstance(tokens, torch.Tensor):
        found: list[list[int]] = tokens.tolist()
        return found
    return tokens
