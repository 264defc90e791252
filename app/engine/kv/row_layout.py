"""What it means for the cache's memory that rows change hands, and what it does for rows that are whole.

Whoever assigns rows (``RowTable``) asks here whether there is room, and is given the moves to be made. Inference
thread; knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from app.engine.generation.plan import ClearRow, CopyRow, Move, SwapRows


class RowLayout(Protocol):
    """Rows by their numbers; ``num_tokens`` counts entries from the front."""

    def swap(self, a: int, b: int, num_tokens: int) -> list[Move]:
        """Two rows change places; so many entries of either are wanted."""
        ...

    def share(self, source: int, target: int, num_tokens: int) -> list[Move]:
        """The target has the source's first entries; whatever it had is gone."""
        ...

    def clear(self, row: int) -> list[Move]:
        """What is in the row may be no numbers, and must reach nobody."""
        ...

    def keep(self, row: int, num_tokens: int) -> None:
        """No more than so many entries of the row are wanted any more."""
        ...

    def num_missing(self, num_tokens: int, num_shared: int, freed: Iterable[tuple[int, int]] = ()) -> int:
        """How much room there is too little for a row that will have ``num_tokens``, ``num_shared`` of them shared;
        0 or less where there is enough. ``freed``: rows, and how many of their entries would be kept for that.
        """
        ...

    def claim(self, row: int, num_tokens: int, num_shared: int) -> None:
        """The row will have so many entries; 0: nothing more is written to it."""
        ...


class WholeRows:
    """Every row has room for as many entries as any may have."""

    def swap(self, a: int, b: int, num_tokens: int) -> list[Move]:
        return [SwapRows(a, b, num_tokens)]

    def share(self, source: int, target: int, num_tokens: int) -> list[Move]:
        return [CopyRow(source, target, num_tokens)]

    def clear(self, row: int) -> list[Move]:
        return [ClearRow(row)]

    def keep(self, row: int, num_tokens: int) -> None:
        """There is nothing to give back."""

    def num_missing(self, num_tokens: int, num_shared: int, freed: Iterable[tuple[int, int]] = ()) -> int:
        return 0

    def claim(self, row: int, num_tokens: int, num_shared: int) -> None:
        """Its room is there."""
