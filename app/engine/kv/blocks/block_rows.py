"""What it means that rows change hands where they are tables of blocks.

Inference thread; knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.engine.generation.plan import ClearBlocks, CopyBlocks, Move
from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.row_layout import RowLayout, WholeRows


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


def nobodys_rows(pages: Pages | None, num_extra: int, max_tokens: int) -> RowLayout:
    """Rows that nobody has yet: whole ones where there are no blocks.

    A step may write ``num_extra`` entries behind a row's last one.
    """
    if pages is None:
        return WholeRows()
    pages.reset()
    return PagedRows(pages, num_extra, max_tokens)
