"""What one sequence wants of its next token, and its own random numbers. Inference thread only."""

from __future__ import annotations

import random

from app.core.work.sampling_params import SamplingParams
from app.engine.sampling.row_logits import RowLogits
from app.engine.sampling.row_wishes import way_of


class RowSampler:
    """Sampling state of one sequence: its parameters, its random numbers, what changes its logits."""

    def __init__(self, params: SamplingParams, logits: RowLogits):
        self.params = params
        self.logits = logits
        self.way = way_of(params)
        self._random = random.Random(params.seed)

    def uniform(self) -> float:
        """The next random number in [0, 1) of this sequence."""
        return self._random.random()

    def accept(self, token: int) -> None:
        """``token`` now belongs to the sequence."""
        if not self.logits.is_idle:
            self.logits.accept(token)
