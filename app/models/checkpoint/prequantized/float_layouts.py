"""Layouts whose codes are no whole numbers on a line: 8-bit floats, bitsandbytes' 4 bits, MXFP4.

FP8: ``weight`` in E4M3 with a scale for all, for each output, or for each block (DeepSeek's ``weight_scale_inv``, by
which values are multiplied, whatever its name). bitsandbytes: two codes in a byte, the first in its high half, which
stand for numbers in a table, times the largest value of each block of a flat weight; those may be coded themselves.
MXFP4, as gpt-oss has it: ``blocks`` ``(experts, out, groups, 16)``, the first code in a byte's low half, and an
exponent of two for each group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from app.core.errors import ModelLoadError
from app.models.checkpoint.prequantized.coded_weight import CodedWeight
from app.models.checkpoint.prequantized.stored_tensors import Stored

# OCP Microscaling Formats 1.0: E2M1, and E8M0 with its bias.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
EXPONENT_BIAS = 127
MX_GROUP = 32


class Float8Weight(CodedWeight):
    """``block``: outputs and inputs that share a scale, where they lie in blocks."""

    num_bits = 8

    def __init__(self, codes: Stored, scales: Stored, block: tuple[int, int] | None):
        self.shape, self._codes, self._scales, self._block = codes.shape, codes, scales, block

    def rows(self, rows: slice) -> torch.Tensor:
        values, scales = self._codes.read(rows).float(), as_floats(self._scales.read())
        if self._block is not None:
            high, wide = self._block
            places = torch.arange(rows.start, rows.stop) // high
            return values * scales[places].repeat_interleave(wide, dim=1)[:, : self.shape[1]]
        if scales.numel() == 1:
            return values * scales.reshape(1, 1)
        return values * scales.reshape(self.shape[0], -1)[rows].repeat_interleave(
            self.shape[1] * self.shape[0] // scales.numel(), dim=1
        )


def as_floats(scales: torch.Tensor) -> torch.Tensor:
    """Float32; bytes are exponents of two (UE8M0)."""
    if scales.dtype == torch.uint8:
        return torch.ldexp(torch.ones(()), scales.int() - EXPONENT_BIAS)
    return scales.float()


@dataclass(frozen=True)
class Largest:
    """The largest value of each block: numbers, or codes of them in blocks of ``block_size``, moved by ``offset``."""

    values: Stored
    table: Stored | None = None
    scales: Stored | None = None
    block_size: int = 1
    offset: float = 0.0

    def read(self, part: slice) -> torch.Tensor:
        """Float32, of some blocks."""
        values = self.values.read(part)
        if self.table is None or self.scales is None:
            return values.float()
        scales = self.scales.read().float()[torch.arange(part.start, part.stop) // self.block_size]
        return self.table.read().float()[values.long()] * scales + self.offset


class NormalFloatWeight(CodedWeight):
    """bitsandbytes' NF4 or FP4: ``table`` has the sixteen numbers."""

    num_bits = 4

    def __init__(self, codes: Stored, shape: tuple[int, ...], table: Stored, largest: Largest, block_size: int):
        self.shape, self._codes, self._table = shape, codes, table
        self._largest, self._block_size = largest, block_size

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """Blocks go over the ends of rows: the whole is flat."""
        made = torch.empty(self.shape, dtype=dtype)
        flat, step = made.view(-1), max((1 << 20) // self._block_size, 1) * self._block_size
        raw = self._codes.read().contiguous().view(torch.uint8).reshape(-1)
        for start in range(0, flat.numel(), step):
            stop = min(start + step, flat.numel())
            flat[start:stop] = self._values(raw, start, stop)
        return made

    def rows(self, rows: slice) -> torch.Tensor:
        return self.weight(torch.float32)[rows]

    def check(self) -> None:
        if not bool(self._table.read().float().isfinite().all()):
            raise ModelLoadError(f"{self._table.name[:100]} holds NaN or infinity")

    def _values(self, raw: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        pairs = raw[start // 2 : -(-stop // 2)]
        codes = torch.stack((pairs >> 4, pairs & 15), dim=1).view(-1)[: stop - start]
        blocks = slice(start // self._block_size, -(-stop // self._block_size))
        largest = self._largest.read(blocks).repeat_interleave(self._block_size)[: stop - start]
        return self._table.read().float()[codes.long()] * largest


class MxWeight(CodedWeight):
    """Experts in MXFP4; a model has them as ``(experts, in, out)``."""

    num_bits = 4

    def __init__(self, blocks: Stored, scales: Stored):
        num_experts, num_out, num_groups, _ = blocks.shape
        self.shape = (num_experts, num_groups * MX_GROUP, num_out)
        self._blocks, self._scales = blocks, scales

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        made = torch.empty(self.shape, dtype=dtype)
        for expert in range(self.shape[0]):
            made[expert] = self.rows(slice(expert, expert + 1))[0]
        return made

    def rows(self, rows: slice) -> torch.Tensor:
        raw, exponents = self._blocks.read(rows), self._scales.read(rows).int() - EXPONENT_BIAS
        codes = torch.stack((raw & 15, raw >> 4), dim=-1).flatten(-2)
        table = torch.tensor([*E2M1, *(-value for value in E2M1)])
        values = torch.ldexp(table[codes.long()], exponents[..., None])
        return values.flatten(2).transpose(1, 2)
