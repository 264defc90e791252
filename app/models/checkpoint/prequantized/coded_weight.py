"""A weight that several tensors of a checkpoint mean, whatever their layout. Threads of a load, inference thread.

What all layouts of whole numbers share: a weight is ``(code - zero) * step`` with a step and a zero for each group of
inputs. Weights are made a part of the outputs at a time: beside the result only a few megabytes are float32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch

from app.core.errors import ModelLoadError
from app.models.checkpoint.prequantized.stored_tensors import Stored
from app.models.weights.grids import Blocks, Bytes, Grid

# Values that are float32 at once, and the number of outputs that parts are whole multiples of: layouts pack up to 32.
PART_VALUES = 1 << 20
ROW_STEP = 32
# Groups that the 4-bit kernel reads; larger ones are several of these.
KERNEL_GROUPS = (256, 128, 64, 32)
BITS = (4, 8)


class CodedWeight(ABC):
    """``shape`` is that of the weight as a model has it."""

    shape: tuple[int, ...]
    num_bits: int

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight, rounded once. Raises ``ModelLoadError``."""
        made = torch.empty(self.shape, dtype=dtype)
        for rows in parts_of(self.shape):
            made[rows] = self.rows(rows)
        return made

    @abstractmethod
    def rows(self, rows: slice) -> torch.Tensor:
        """Float32, of some of the outputs; ``rows`` begins at a multiple of ``ROW_STEP``."""

    def check(self) -> None:
        """Raise ``ModelLoadError`` where what can be read quickly tells that the tensors cannot be meant."""
        return

    def grid(self) -> Grid | None:
        """Codes that our own layers can keep, if they can."""
        return None


class Coded(NamedTuple):
    """Whole-number ``codes`` ``(out, in)``, float32 ``steps`` and ``zeros`` ``(out, groups)``."""

    codes: torch.Tensor
    steps: torch.Tensor
    zeros: torch.Tensor


class IntegerWeight(CodedWeight):
    """``groups`` ``(in,)`` says of which group each input is; without it they lie side by side."""

    def __init__(self, name: str, shape: tuple[int, int], num_bits: int, num_groups: int, groups: Stored | None):
        self.name, self.shape, self.num_bits, self.num_groups = name, shape, num_bits, num_groups
        self._groups = groups

    @abstractmethod
    def read(self, rows: slice) -> Coded:
        """Of some outputs."""

    def rows(self, rows: slice) -> torch.Tensor:
        coded, groups = self.read(rows), self.groups
        if groups is None:
            grouped = coded.codes.view(*coded.steps.shape, -1).float()
            return ((grouped - coded.zeros[..., None]) * coded.steps[..., None]).view(coded.codes.shape)
        return (coded.codes.float() - coded.zeros[:, groups]) * coded.steps[:, groups]

    def check(self) -> None:
        """Every input is of a group that there is."""
        groups = self.groups
        if groups is not None and not 0 <= int(groups.min()) <= int(groups.max()) < self.num_groups:
            raise ModelLoadError(
                f"{self.name[:100]} speaks of group {int(groups.max() if groups.min() >= 0 else groups.min())}, "
                f"there are {self.num_groups}"
            )

    @cached_property
    def groups(self) -> torch.Tensor | None:
        """``(in,)``; None where they lie side by side."""
        if self._groups is None:
            return None
        groups = self._groups.read().long()
        num_in = self.shape[1]
        if num_in % self.num_groups == 0:
            usual = torch.arange(num_in) // (num_in // self.num_groups)
            if torch.equal(groups, usual):
                return None
        return groups

    @cached_property
    def order(self) -> torch.Tensor | None:
        """The inputs, group by group; None where they are as they lie."""
        return None if self.groups is None else torch.argsort(self.groups, stable=True)

    @property
    def group_size(self) -> int | None:
        """Inputs of each group; None where groups differ in size."""
        num_in = self.shape[1]
        if num_in % self.num_groups:
            return None
        size = num_in // self.num_groups
        is_even = self.groups is None or bool((torch.bincount(self.groups, minlength=self.num_groups) == size).all())
        return size if is_even else None

    def grid(self) -> Grid | None:
        size = self.group_size
        if self.num_bits == 4 and size and (kernel_size := next((n for n in KERNEL_GROUPS if size % n == 0), None)):
            return FourBitGrid(self, kernel_size)
        if self.num_bits == 8 and self.num_groups == 1 and self.has_signed_codes:
            return EightBitGrid(self)
        return None

    @property
    def has_signed_codes(self) -> bool:
        """Whether zeros are all 0, and codes int8."""
        return False


class FourBitGrid(Grid):
    """The codes of a weight in four bits, in groups that the kernel reads."""

    bits = 4

    def __init__(self, coded: IntegerWeight, group_size: int):
        self._coded, self.group_size = coded, group_size

    @property
    def order(self) -> torch.Tensor | None:
        return self._coded.order

    def read(self) -> Blocks:
        return self.first(self._coded.shape[0])

    def first(self, num_rows: int) -> Blocks:
        coded = self._coded.read(slice(0, num_rows))
        times = self._coded.shape[1] // self._coded.num_groups // self.group_size
        steps, zeros = (part.repeat_interleave(times, dim=1) for part in (coded.steps, coded.zeros))
        codes = coded.codes if self.order is None else coded.codes[:, self.order]
        return Blocks(codes.to(torch.uint8), steps, -zeros * steps, self.order)


class EightBitGrid(Grid):
    """The codes of a weight in eight bits that has a scale for each output."""

    bits = 8

    def __init__(self, coded: IntegerWeight):
        self._coded = coded

    def read(self) -> Bytes:
        return self.first(self._coded.shape[0])

    def first(self, num_rows: int) -> Bytes:
        coded = self._coded.read(slice(0, num_rows))
        return Bytes(coded.codes, coded.steps.reshape(-1))


def parts_of(shape: tuple[int, ...]) -> Iterator[slice]:
    """Parts of the outputs of a weight."""
    per_row = max(math.prod(shape[1:]), 1)
    num_rows = max(PART_VALUES // per_row // ROW_STEP, 1) * ROW_STEP
    for start in range(0, shape[0], num_rows):
        yield slice(start, min(start + num_rows, shape[0]))


def unpacked(words: torch.Tensor, num_bits: int) -> torch.Tensor:
    """int32 ``(.., words)`` to uint8 codes ``(.., words * 32 / bits)``, the lowest bits first."""
    shifts = torch.arange(0, 32, num_bits, dtype=torch.int32)
    codes: Any = (words[..., None] >> shifts) & (2**num_bits - 1)
    return torch.Tensor.flatten(codes, -2).to(torch.uint8)
