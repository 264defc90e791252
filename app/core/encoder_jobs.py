"""Jobs for encoders: one text to be encoded, and what came of it. Knows neither Flask nor torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

from app.core.jobs import BaseJob, JobOptions


@dataclass(frozen=True, slots=True)
class Encoded:
    """A vector; or, for each mask in the text, the best ``(token, probability)`` pairs."""

    vector: tuple[float, ...] = ()
    masks: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it holds numbers: NaN anywhere makes the sum NaN, and all probabilities of a mask."""
        return math.isfinite(sum(self.vector)) and all(math.isfinite(score) for best in self.masks for _, score in best)


class EncoderJob(BaseJob):
    """One text for an encoder; ``top_k`` is how many tokens are wanted for each mask.

    ``encoded`` is there once ``Finished`` was read.
    """

    def __init__(self, request_id: str, prompt_ids: list[int], top_k: int = 0, **options: Unpack[JobOptions]):
        super().__init__(request_id, prompt_ids, **options)
        self.top_k = top_k
        self.encoded: Encoded | None = None

    def finish_with(self, encoded: Encoded) -> None:
        """Hand the result to the HTTP thread; called by the inference thread."""
        self.encoded = encoded
        self.finish("stop")
