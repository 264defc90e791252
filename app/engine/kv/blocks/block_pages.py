"""Which blocks of the cache's memory hold the entries of which row: tables, references, and who may still ask for more.

Blocks that are full of a prefix are shared by reference, and copied before anything is written into them. Block 0 is
nobody's: rows that only fill up a step write there. Inference thread; knows no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

BlockCopy = tuple[int, int]
NOBODYS = 0


class Pages:
    """Tables of ``num_rows`` rows over blocks of ``block_tokens`` entries.

    A row claims the blocks that it will need at most; claims are never more than what is free, so a row that runs gets
    every block that it asks for.
    """

    def __init__(self, num_rows: int, num_blocks: int, block_tokens: int):
        assert num_blocks >= 2, "a block for nobody, and one for somebody"
        self.block_tokens, self.num_blocks = block_tokens, num_blocks
        self._num_rows = num_rows
        self.version = 0
        self.reset()

    def reset(self) -> None:
        """No row holds anything."""
        self.tables: list[list[int]] = [[] for _ in range(self._num_rows)]
        self._claims = [0] * self._num_rows
        self._references = [0] * self.num_blocks
        self._free = list(range(self.num_blocks - 1, NOBODYS, -1))
        self.version += 1

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_unclaimed(self) -> int:
        """Free blocks that no row has a claim to."""
        return len(self._free) - sum(self._claims)

    def num_needed(self, num_tokens: int, num_shared: int) -> int:
        """Blocks that a row will ask for until it has ``num_tokens``, the first ``num_shared`` being there already.

        The block in which those end is written to: it may have to be copied.
        """
        return self._count(num_tokens) - num_shared // self.block_tokens

    def num_freed(self, rows: Iterable[tuple[int, int]]) -> int:
        """Blocks that would be free if of each row only so many entries were kept; changes nothing."""
        dropped = Counter(block for row, kept in rows for block in self.tables[row][self._count(kept) :])
        return sum(self._references[block] == count for block, count in dropped.items())

    def claim(self, row: int, num_blocks: int) -> None:
        """The row will ask for so many blocks from now on, and no more."""
        self._claims[row] = num_blocks

    def swap(self, a: int, b: int) -> None:
        """Two rows change places: nothing is moved."""
        tables, claims = self.tables, self._claims
        tables[a], tables[b] = tables[b], tables[a]
        claims[a], claims[b] = claims[b], claims[a]
        self.version += 1

    def share(self, source: int, target: int, num_tokens: int) -> list[BlockCopy]:
        """The target's entries are the first ``num_tokens`` of the source's; what is to be copied for that."""
        self.keep(target, 0)
        num_full = num_tokens // self.block_tokens
        shared = self.tables[source][:num_full]
        for block in shared:
            self._references[block] += 1
        self.tables[target] = list(shared)
        self.version += 1
        if num_tokens % self.block_tokens == 0:
            return []
        self._append(target)
        return [(self.tables[source][num_full], self.tables[target][num_full])]

    def keep(self, row: int, num_tokens: int) -> None:
        """Of the row no more than its first ``num_tokens`` entries are wanted: the other blocks go back at once."""
        table, num_kept = self.tables[row], self._count(num_tokens)
        if num_kept >= len(table):
            return
        for block in reversed(table[num_kept:]):
            self._let_go(block)
        del table[num_kept:]
        self.version += 1

    def hold(self, row: int, start: int, end: int) -> list[BlockCopy]:
        """Room for entries ``start`` .. ``end`` of a row, in blocks of its own; what is to be copied before."""
        copies, table = [], self.tables[row]
        for at in range(start // self.block_tokens, min(self._count(end), len(table))):
            if self._references[table[at]] > 1:
                shared, table[at] = table[at], self._take(row)
                self._references[shared] -= 1
                copies.append((shared, table[at]))
                self.version += 1
        while len(table) < self._count(end):
            self._append(row)
        return copies

    def own(self, row: int) -> list[int]:
        """Blocks that no other row refers to."""
        return [block for block in self.tables[row] if self._references[block] == 1]

    def _append(self, row: int) -> None:
        self.tables[row].append(self._take(row))
        self.version += 1

    def _take(self, row: int) -> int:
        if not self._free:
            raise MemoryError("the KV cache has no free block, although no more were promised than there are")
        self._claims[row] = max(self._claims[row] - 1, 0)
        block = self._free.pop()
        self._references[block] = 1
        return block

    def _let_go(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block] == 0:
            self._free.append(block)

    def _count(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)
