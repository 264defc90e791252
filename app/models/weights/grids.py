"""Weights that came in four bits, as their file has them: codes, and for each 32 of them a step and a border.

A weight is ``code * step + border``. A linear layer whose weight was read from such blocks refers to them, so that it
can be laid out for our own kernels without being rounded anew. Inference thread only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

ATTRIBUTE = "grid"


class Blocks(NamedTuple):
    """uint8 ``codes`` ``(out, in)`` from 0 to 15, float32 ``steps`` and ``borders`` ``(out, in / 32)``."""

    codes: torch.Tensor
    steps: torch.Tensor
    borders: torch.Tensor

    def weight(self) -> torch.Tensor:
        """The weight that they mean, float32 ``(out, in)``."""
        grouped = self.codes.view(*self.steps.shape, -1).float()
        return (grouped * self.steps[..., None] + self.borders[..., None]).view(self.codes.shape)

    def rows(self, chosen: torch.Tensor | slice) -> Blocks:
        """Those of some outputs."""
        return Blocks(self.codes[chosen], self.steps[chosen], self.borders[chosen])


class Grid(ABC):
    """Where blocks lie; they are read when they are asked for."""

    @abstractmethod
    def read(self) -> Blocks:
        """All of them, in memory of their own."""


@dataclass(frozen=True)
class MergedGrid(Grid):
    """The blocks of several layers with the same inputs, one behind the other."""

    parts: tuple[Grid, ...]

    def read(self) -> Blocks:
        blocks = [part.read() for part in self.parts]
        return Blocks(*(torch.cat(tensors) for tensors in zip(*blocks, strict=True)))


def grid_of(layer: nn.Module) -> Grid | None:
    """The blocks that the layer's weight was read from."""
    found = getattr(layer, ATTRIBUTE, None)
    return found if isinstance(found, Grid) else None


def set_grid(layer: nn.Module, grid: Grid | None) -> None:
    """``layer``'s weight was read from ``grid``."""
    if grid is not None:
        setattr(layer, ATTRIBUTE, grid)


def merged_grid(layers: Sequence[nn.Module]) -> Grid | None:
    """The blocks of ``layers`` merged into one; None where one of them has none."""
    grids = [grid for grid in map(grid_of, layers) if grid is not None]
    return MergedGrid(tuple(grids)) if len(grids) == len(layers) else None
