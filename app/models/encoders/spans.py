"""Answers to a question: spans of a text from the logits that one starts and ends with a token. Pure functions.

transformers 5 has no pipeline for it. The rule: in each part of the text, probabilities (softmax) over the tokens of
the context and the one that classifies the whole; a span scores the product of the probability that it starts with its
first token and that it ends with its last; of equal characters in several parts the best score counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.core.tasks.encoder_jobs import EncoderInput, Table

CONTEXT = 1
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Span:
    """The characters ``start`` to ``end`` of the context; none of them: there is no answer."""

    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SpanFinder:
    """``cls_id``: the token that classifies the whole; None where the model has none."""

    top_k: int
    most_tokens: int
    may_be_none: bool
    cls_id: int | None

    def find(self, parts: Iterable[tuple[EncoderInput, Table]]) -> list[Span]:
        """The best spans, best first; of each part its table ``(seq, 2)``."""
        best: dict[tuple[int, int], float] = {}
        nothing = [self._read(given, table, best) for given, table in parts]
        found = [Span(score, *place) for place, score in best.items()]
        if self.may_be_none:
            found.append(Span(min(nothing), 0, 0))
        return heapq.nlargest(self.top_k, found, key=lambda span: span.score)

    def _read(self, given: EncoderInput, table: Table, best: dict[tuple[int, int], float]) -> float:
        """Take the best spans of a part into ``best``; the probability that it has none."""
        of_context = np.array([segment == CONTEXT for segment in given.segments])
        of_all = np.array([token == self.cls_id for token in given.ids])
        starts, ends = (probabilities(table[:, column], of_context | of_all) for column in (0, 1))
        is_empty = bool(of_all[0]) if len(of_all) else False
        nothing = float(starts[0] * ends[0]) if is_empty else 0.0
        starts, ends = np.where(of_context, starts, 0.0), np.where(of_context, ends, 0.0)
        for score, first, last in heapq.nlargest(self.top_k, self._spans(starts, ends)):
            place = (given.spans[first][0], given.spans[last][1])
            best[place] = max(score, best.get(place, 0.0))
        return nothing

    def _spans(self, starts: Probabilities, ends: Probabilities) -> Iterator[tuple[float, int, int]]:
        """The best spans of each length: no other can be among the best of all."""
        for length in range(min(self.most_tokens, len(starts))):
            scores = starts[: len(starts) - length] * ends[length:]
            count = min(self.top_k, len(scores))
            for first in np.argpartition(-scores, count - 1)[:count]:
                if scores[first] > 0:
                    yield float(scores[first]), int(first), int(first) + length


def probabilities(logits: Table, is_possible: NDArray[np.bool_]) -> Probabilities:
    """Over the places that are possible ``(seq,)``; 0 elsewhere."""
    values = np.where(is_possible, logits.astype(np.float64), -np.inf)
    shares = np.exp(values - values.max())
    return np.asarray(shares / shares.sum())
