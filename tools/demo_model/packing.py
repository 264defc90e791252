"""Packs samples of token ids into rows of a fixed length, whole samples only.

A row starts with a sample's first token, as a request does, and numbers its
samples so that the trainer keeps them from attending to one another.
"""

from dataclasses import dataclass, field

import numpy as np

NUM_OPEN_ROWS = 24


@dataclass(frozen=True)
class TokenizedSample:
    """Token ids of one sample and, for each, its weight in the loss."""

    ids: list[int]
    weights: list[int]


@dataclass
class Row:
    """A row being filled; segment numbers start at 1, 0 marks padding."""

    ids: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def append(self, sample: TokenizedSample) -> None:
        number = self.segments[-1] + 1 if self.segments else 1
        self.ids += sample.ids
        # Nothing precedes a sample's first token, so it cannot be learned.
        self.weights += [0, *sample.weights[1:]]
        self.segments += [number] * len(sample.ids)


class RowPacker:
    """Best fit over a few open rows; the order of samples stays roughly that of arrival."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._rows: list[Row] = []

    def add_round(self, samples: list[TokenizedSample]) -> None:
        """Pack one round; its rows stay together, before those of the next round."""
        open_rows: list[Row] = []
        for sample in samples:
            row = self._best_fit(open_rows, len(sample.ids))
            if row is None:
                if len(open_rows) == NUM_OPEN_ROWS:
                    open_rows.remove(max(open_rows, key=lambda row: len(row.ids)))
                row = Row()
                open_rows.append(row)
                self._rows.append(row)
            row.append(sample)

    def _best_fit(self, rows: list[Row], num_tokens: int) -> Row | None:
        fitting = [row for row in rows if len(row.ids) + num_tokens <= self._length]
        return max(fitting, key=lambda row: len(row.ids), default=None)

    def arrays(self) -> dict[str, np.ndarray]:
        """`tokens` uint16, `weights` uint8 and `segments` uint16, each (row, length)."""
        return {
            "tokens": self._padded([row.ids for row in self._rows], np.uint16),
            "weights": self._padded([row.weights for row in self._rows], np.uint8),
            "segments": self._padded([row.segments for row in self._rows], np.uint16),
        }

    def _padded(self, rows: list[list[int]], dtype: type) -> np.ndarray:
        array: np.ndarray = np.zeros((len(rows), self._length), dtype)
        for target, row in zip(array, rows, strict=True):
            target[: len(row)] = row
        return array
