"""Adapters as the C++ of compiled passes reads them: addresses of their numbers where they lie. Inference thread only.

Nothing is copied, so an adapter that is new costs no pass more than the making of its table.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

from app.core.work.adapters import Adapter, Floats
from app.models.weights.fused.fused_layers import FusedLayer

# Matrices of a layer, as the C++ counts them.
NUM_CHANGED = 4


class Part(ctypes.Structure):
    """What is added to some outputs of a matrix; see the C++."""

    _fields_ = (("down", c_void_p), ("up", c_void_p), *((name, c_int64) for name in ("rank", "first", "count")))


class Change(ctypes.Structure):
    """The parts of one matrix."""

    _fields_ = (("parts", c_void_p), ("num_parts", c_int64))


class Run(ctypes.Structure):
    """Tokens one behind the other of one adapter, from a token on."""

    _fields_ = (("first", c_int64), ("count", c_int64), ("changes", c_void_p))


@dataclass(frozen=True)
class Table:
    """An adapter's ``changes`` of each matrix of all layers; ``num_ranks``: the most that a matrix has."""

    changes: ctypes.Array[Change]
    num_ranks: int
    held: list[object]


class AdapterTables:
    """Of the fused layers of ``model``, which compute what an adapter names; made when an adapter is first used."""

    def __init__(self, model: nn.Module):
        fused = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, FusedLayer)]
        self._matrices = [place for name, layer in fused for place in _places_in(name, layer)]
        self._known = {name for matrix in self._matrices for name, _, _ in matrix}
        self._tables: WeakKeyDictionary[Adapter, Table | None] = WeakKeyDictionary()

    def table(self, adapter: Adapter) -> Table | None:
        """None where it changes something else, too."""
        if adapter not in self._tables:
            self._tables[adapter] = self._made(adapter) if set(adapter.parts) <= self._known else None
        return self._tables[adapter]

    def _made(self, adapter: Adapter) -> Table:
        changes, held, num_ranks = (Change * len(self._matrices))(), list[object](), 0
        for at, matrix in enumerate(self._matrices):
            found = [(adapter.parts[name], first, count) for name, first, count in matrix if name in adapter.parts]
            ranks = [len(part.down) for part, _, _ in found]
            parts = (Part * len(found))(
                *(
                    Part(_address(part.down), _address(part.up), rank, first, count)
                    for (part, first, count), rank in zip(found, ranks, strict=True)
                )
            )
            changes[at] = Change(ctypes.addressof(parts), len(found))
            held += [parts, *(numbers for part, _, _ in found for numbers in (part.down, part.up))]
            num_ranks = max(num_ranks, sum(ranks))
        return Table(changes, num_ranks, held)


def runs_of(tables: Sequence[tuple[Table | None, int]]) -> list[Run]:
    """Of pieces in their order, each of so many tokens: those of one adapter that lie together are one."""
    runs, first, before = list[Run](), 0, None
    for table, count in tables:
        if table is not None and table is before:
            runs[-1].count += count
        elif table is not None:
            runs.append(Run(first, count, ctypes.addressof(table.changes)))
        first, before = first + count, table
    return runs


def _places_in(name: str, layer: FusedLayer) -> list[list[tuple[str, int, int]]]:
    """Of each matrix of a layer; experts are no matrices that an adapter changes."""
    found = [_places(name, own) for _, own in layer.merged_layers()]
    return found + [[] for _ in range(NUM_CHANGED - len(found))]


def _places(layer: str, own: dict[str, int]) -> list[tuple[str, int, int]]:
    """Names of what a matrix computes, with first output and number."""
    found, first = [], 0
    for name, count in own.items():
        found.append((f"{layer}.{name}", first, count))
        first += count
    return found


def _address(numbers: Floats) -> int:
    assert numbers.flags.c_contiguous
    return int(numbers.ctypes.data)
