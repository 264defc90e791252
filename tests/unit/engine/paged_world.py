"""The world of ``planned_world`` on a cache in blocks: its entries lie where tables say, as on a device."""

from __future__ import annotations

from app.engine.generation.plan import Chunk, ClearBlocks, CopyBlocks, Plan
from app.engine.generation.scheduler import Limits, Scheduler
from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.blocks.block_rows import PagedRows
from tests.unit.engine.planned_world import PlainSequence, World


class PagedRow:
    """One row's entries by their positions."""

    def __init__(self, cache: PagedPlainCache, row: int):
        self._cache, self._row = cache, row

    def __getitem__(self, at: int) -> tuple[bytes, int]:
        return self._cache.slots[self._cache.slot(self._row, at)]


class PagedPlainCache:
    """Blocks of ``(owner, token)``; the form of ``PlainCache``."""

    def __init__(self, pages: Pages, num_rows: int):
        self.pages = pages
        self.slots: dict[int, tuple[bytes, int]] = {}
        self.rows = [PagedRow(self, row) for row in range(num_rows)]

    def slot(self, row: int, at: int) -> int:
        size = self.pages.block_tokens
        return self.pages.tables[row][at // size] * size + at % size

    def make(self, plan: Plan) -> None:
        for move in plan.moves:
            match move:
                case CopyBlocks(blocks):
                    self._copy(blocks)
                case ClearBlocks(blocks):
                    for block in blocks:
                        self._each(block, lambda slot: self.slots.pop(slot, None))
                case _:
                    raise AssertionError("rows in blocks change places by name")

    def write(self, row: int, start: int, tokens: list[int], owner: bytes) -> None:
        self._copy(self.pages.hold(row, start, start + len(tokens)))
        for at, token in enumerate(tokens, start):
            self.slots[self.slot(row, at)] = (owner, token)

    def keep(self, chunk: Chunk, _owner: bytes) -> None:
        assert not chunk.snapshots, "entries in blocks have no states beside them"

    def _copy(self, blocks) -> None:
        size = self.pages.block_tokens
        for source, target in blocks:
            for at in range(size):
                self.slots.pop(target * size + at, None)
                if source * size + at in self.slots:
                    self.slots[target * size + at] = self.slots[source * size + at]

    def _each(self, block: int, work) -> None:
        for at in range(self.pages.block_tokens):
            work(block * self.pages.block_tokens + at)


class PagedWorld(World):
    """``num_blocks`` of ``block_tokens`` entries, of which block 0 is nobody's."""

    def __init__(self, limits: Limits, *, num_blocks: int, block_tokens: int):
        super().__init__(limits)
        self.pages = Pages(limits.max_running, num_blocks, block_tokens)
        layout = PagedRows(self.pages, num_extra=0, max_tokens=limits.context_tokens)
        self.scheduler: Scheduler[PlainSequence] = Scheduler(limits, self._start, layout)
        self.cache = PagedPlainCache(self.pages, limits.max_running)
