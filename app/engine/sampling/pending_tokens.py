"""Tokens that were drawn and not read yet: the pass behind them may be launched meanwhile.

Inference thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from app.core.work.job_events import TokenLogprob
from app.core.work.jobs import Job
from app.engine.sampling.token_scores import entry_of

# In the place of a token, where the row's logits hold NaN or +infinity.
UNSOUND = -1
AnyRow = TypeVar("AnyRow")


@dataclass(frozen=True)
class Drawn:
    """The next tokens of rows, on the device: ``tokens`` ``(rows,)``, ``UNSOUND`` for a row with NaN or +infinity.

    ``scores`` ``(rows, ..)``, float64, which holds every float32 and every id: the tokens, their log-probabilities,
    those of the best tokens and their ids; None where nobody asked. ``wanted``: how many of the best each row wants.
    """

    tokens: torch.Tensor
    scores: torch.Tensor | None
    wanted: list[int | None]

    def read(self) -> list[tuple[int, TokenLogprob | None]]:
        """The token of each row, and its log-probability where that was asked for, in one transfer.

        A row without a token has no meaningful log-probability either.
        """
        if self.scores is None:
            return [(token, None) for token in self.tokens.tolist()]
        found = []
        for (token, *numbers), num in zip(self.scores.tolist(), self.wanted, strict=True):
            found.append((int(token), None if num is None else entry_of(int(token), numbers, num)))
        return found


@dataclass
class Pending(Generic[AnyRow]):
    """The next tokens of ``sequences``, which were in rows 0, 1, .. when their pass was launched.

    ``drawn`` None: that pass failed. ``is_last``: rows have changed hands since; nothing may be launched behind it.
    """

    sequences: list[AnyRow]
    jobs: list[Job]
    drawn: Drawn | None
    is_last: bool = False
