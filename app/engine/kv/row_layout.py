"""What it means for the cache's memory that rows change hands: for rows that are whole, and for rows in blocks.

Whoever assigns rows (``RowTable``) asks here whether there is room, and is given the moves to be made. Inference
thread; knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from app.engine.generation.plan import ClearBlocks, ClearRow, CopyBlocks, CopyRow, Move, SwapRows
from app.engine.kv.block_pages import Pages


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


class PagedRows:
    """Rows are tables of blocks: they change places by name, share by reference, and give back what they do not need.

    ``num_extra``: entries that a step may write behind the last one of a row, of ``max_tokens`` at most.
    """

    def __init__(self, pages: Pages, num_extra: int, max_tokens: int):
        self._pages, self._num_extra, self._max_tokens = pages, num_extra, max_tokens

    def swap(self, a: int, b: int, num_tokens: int) -> list[Move]:
        self._pages.swap(a, b)
        return []

    def share(self, source: int, target: int, num_tokens: int) -> list[Move]:
        copies = self._pages.share(source, target, num_tokens)
        return [CopyBlocks(tuple(copies))] if copies else []

    def clear(self, row: int) -> list[Move]:
        blocks = self._pages.own(row)
        return [ClearBlocks(tuple(blocks))] if blocks else []

    def keep(self, row: int, num_tokens: int) -> None:
        self._pages.keep(row, num_tokens)

    def num_missing(self, num_tokens: int, num_shared: int, freed: Iterable[tuple[int, int]] = ()) -> int:
        needed = self._pages.num_needed(self._most(num_tokens), num_shared)
        return needed - self._pages.num_unclaimed - self._pages.num_freed(freed)

    def claim(self, row: int, num_tokens: int, num_shared: int) -> None:
        most = self._most(num_tokens) if num_tokens else 0
        self._pages.claim(row, max(self._pages.num_needed(most, num_shared), 0))

    def _most(self, num_tokens: int) -> int:
        return min(num_tokens + self._num_extra, self._max_tokens)
