"""Weights that came in a few bits, as their file has them: codes, and what they are codes of.

In four bits a weight is ``code * step + border``, with a step and a border for each group of inputs; in eight bits
``code * scale``, with a scale for each output. A linear layer whose weight was read from such codes refers to them, so
that it can be laid out for our own kernels without being rounded anew. Inference thread only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

ATTRIBUTE = "grid"


class Blocks(NamedTuple):
    """uint8 ``codes`` ``(out, in)`` from 0 to 15, float32 ``steps`` and ``borders`` ``(out, groups)``.

    Column i is of input ``order[i]``; None: of input i.
    """

    codes: torch.Tensor
    steps: torch.Tensor
    borders: torch.Tensor
    order: torch.Tensor | None = None

    def weight(self) -> torch.Tensor:
        """The weight that they mean, float32 ``(out, in)``."""
        grouped = self.codes.view(*self.steps.shape, -1).float()
        weight = (grouped * self.steps[..., None] + self.borders[..., None]).view(self.codes.shape)
        return weight if self.order is None else torch.empty_like(weight).index_copy_(1, self.order, weight)

    def rows(self, chosen: torch.Tensor | slice) -> Blocks:
        """Those of some outputs."""
        return Blocks(self.codes[chosen], self.steps[chosen], self.borders[chosen], self.order)


class Bytes(NamedTuple):
    """int8 ``codes`` ``(out, in)``, float32 ``scales`` ``(out,)``."""

    codes: torch.Tensor
    scales: torch.Tensor


class Grid(ABC):
    """Where codes lie; they are read when they are asked for. ``bits``: 4 or 8; ``group_size``: inputs of a step."""

    bits: int = 4
    group_size: int = 32

    @property
    def order(self) -> torch.Tensor | None:
        """As in ``Blocks``."""
        return None

    @abstractmethod
    def read(self) -> Blocks | Bytes:
        """All of them, in memory of their own."""


class MergedGrid(Grid):
    """The codes of several layers with the same inputs, one behind the other."""

    def __init__(self, parts: Sequence[Grid]):
        self._parts = tuple(parts)
        self.bits, self.group_size = parts[0].bits, parts[0].group_size

    @property
    def order(self) -> torch.Tensor | None:
        return self._parts[0].order

    def read(self) -> Blocks | Bytes:
        found = [part.read() for part in self._parts]
        if isinstance(found[0], Bytes):
            return Bytes(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))
        codes, steps, borders = (torch.cat(tensors) for tensors in list(zip(*found, strict=True))[:3])
        return Blocks(codes, steps, borders, self.order)


def grid_of(layer: nn.Module) -> Grid | None:
    """The blocks that the layer's weight was read from."""
    found = getattr(layer, ATTRIBUTE, None)
    return found if isinstance(found, Grid) else None


def set_grid(layer: nn.Module, grid: Grid | None) -> None:
    """``layer``'s weight was read from ``grid``."""
    if grid is not None:
        setattr(layer, ATTRIBUTE, grid)


def merged_grid(layers: Sequence[nn.Module]) -> Grid | None:
    """The codes of ``layers`` merged into one; None where one of them has none, or they are of unlike kinds."""
    grids = [grid for grid in map(grid_of, layers) if grid is not None]
    if len(grids) != len(layers) or len({(grid.bits, grid.group_size) for grid in grids}) != 1:
        return None
    first, *others = (grid.order for grid in grids)
    are_alike = all(
        order is first or (order is not None and first is not None and torch.equal(order, first)) for order in others
    )
    return MergedGrid(grids) if are_alike else None
