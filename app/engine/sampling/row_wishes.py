"""What the rows of a step want of their logits, as numbers on the device: one transfer for all of them.

Inference thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from app.core.work.sampling_params import SamplingParams
from app.models.checkpoint.transfer import sent

Way = Literal["likeliest", "drawn", "drawn_in_order"]
WAYS: tuple[Way, ...] = ("likeliest", "drawn", "drawn_in_order")
Field = Literal["temperature", "top_p", "log_min_p", "typical_p", "limit", "uniform", "way"]
FIELDS: tuple[Field, ...] = ("temperature", "top_p", "log_min_p", "typical_p", "limit", "uniform", "way")


class RowWishes:
    """Of rows with ``params``, and ``uniforms``: the random number of each; ``limit`` is how many tokens may stay."""

    def __init__(
        self, params: Sequence[SamplingParams], uniforms: Sequence[float], vocab_size: int, device: torch.device
    ):
        self.params = params
        self._numbers = sent(
            np.array(
                [
                    # Where nothing is drawn, nothing is divided by zero.
                    [row.temperature or 1.0 for row in params],
                    [row.top_p for row in params],
                    [math.log(row.min_p) if row.min_p > 0 else -math.inf for row in params],
                    [row.typical_p for row in params],
                    [min(row.top_k or vocab_size, vocab_size) for row in params],
                    uniforms,
                    [WAYS.index(way_of(row)) for row in params],
                ],
                dtype=np.float64,
            ),
            device,
        )

    def column(self, field: Field, like: torch.Tensor) -> torch.Tensor:
        """``(rows, 1)`` with the dtype of ``like``."""
        return self._numbers[FIELDS.index(field)][:, None].to(like.dtype)

    @property
    def limits(self) -> torch.Tensor:
        """How many tokens of each row may stay, ``(rows, 1)``, int64."""
        return self._numbers[FIELDS.index("limit")][:, None].long()

    def is_found(self, way: Way) -> torch.Tensor:
        """The rows ``(rows,)`` that find their token in that way."""
        return self._numbers[FIELDS.index("way")] == WAYS.index(way)


def way_of(params: SamplingParams) -> Way:
    """How a row with these parameters finds its token."""
    if params.temperature == 0.0:
        return "likeliest"
    return "drawn_in_order" if needs_order(params) else "drawn"


def needs_order(params: SamplingParams) -> bool:
    """Whether tokens must be sorted by probability to filter them."""
    return params.top_k > 0 or params.top_p < 1.0 or params.typical_p < 1.0
