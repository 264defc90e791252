"""Jobs for encoders: one text to be encoded, and what came of it. Knows neither Flask nor torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from app.core.work.jobs import BaseJob, JobOptions

# Of one pass: texts, and tokens with their padding; a single text may be longer.
MAX_BATCH_TEXTS = 32
MAX_BATCH_TOKENS = 8192

Table = NDArray[np.float32]
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Cut:
    """What may be left out of a text that is too long: on which side, down to how many tokens (None: the context).

    ``strategy``: of which text of a pair, as transformers names it; ``param``: the field that asked for it.
    """

    side: Side = "right"
    most_tokens: int | None = None
    strategy: Literal["longest_first", "only_first"] = "longest_first"
    param: str = "truncate"


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """A text, or a pair, as token ids.

    ``type_ids`` tells the texts of a pair apart, where the model does; empty: all are of the first.
    Where somebody asked for them: ``spans`` are the characters of its text that each token stands for (empty with a
    tokenizer that cannot tell), ``segments`` which text it is of, None for tokens of no text. ``num_unpooled``: so many
    tokens from the front do not count in a mean of all.
    """

    ids: list[int]
    type_ids: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    segments: list[int | None] = field(default_factory=list)
    num_unpooled: int = 0


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """``top_k``: how many tokens are wanted for each mask. ``normalize``: whether a vector is made one of length 1;
    None: as the checkpoint says. ``dimensions``: how many of a vector's first entries are wanted; None: all.
    """

    top_k: int = 0
    normalize: bool | None = None
    dimensions: int | None = None


PLAIN = EncodeOptions()


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a pass gave for one text, by task.

    A vector; for each mask in the text, the best ``(token, probability)`` pairs; a logit for each label of a text; or a
    ``table`` ``(seq, size)``: for each token the probabilities of its labels, or the logits that an answer starts and
    ends with it.
    """

    vector: tuple[float, ...] = ()
    masks: tuple[tuple[tuple[int, float], ...], ...] = ()
    logits: tuple[float, ...] = ()
    table: Table | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it holds numbers: NaN anywhere makes the sum NaN, and all probabilities of a mask."""
        sums = (sum(self.vector), sum(self.logits), 0.0 if self.table is None else float(self.table.sum()))
        return all(map(math.isfinite, sums)) and all(math.isfinite(score) for best in self.masks for _, score in best)


class EncoderJob(BaseJob):
    """One text for an encoder. ``encoded`` is there once ``Finished`` was read."""

    def __init__(
        self,
        request_id: str,
        given: EncoderInput,
        wanted: EncodeOptions = PLAIN,
        **options: Unpack[JobOptions],
    ):
        super().__init__(request_id, given.ids, **options)
        self.given = given
        self.wanted = wanted
        self.encoded: Encoded | None = None

    def finish_with(self, encoded: Encoded) -> None:
        """Hand the result to the HTTP thread; called by the inference thread."""
        self.encoded = encoded
        self.finish("stop")
