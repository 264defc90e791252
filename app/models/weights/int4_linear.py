"""A linear layer with 4-bit weights on the CPU: the arithmetic of FORKLIFT_QUANTIZATION=int4.

A weight is ``code * scale + zero`` with a code from -8 to 7; each output has a scale and a zero
point in bfloat16 per ``GROUP_SIZE`` inputs, chosen so that the group's least and largest weight are
codes: 5 bits per weight in all. Codes that came in a file keep its groups, and the order in which it
has inputs. torch's kernel unpacks a weight for each row anew, so long prompts are slow; unpacking once
for many rows was tried and gained nothing up to 128 rows (docs/models.md).
Computes in bfloat16. Inference thread only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from app.models.weights.grids import Blocks

# Mean divergence of the demo model: 0.029 with 32, 0.038 with 64, 0.049 with 128 (docs/models.md).
GROUP_SIZE = 32
# The sizes that the kernel knows.
GROUP_SIZES = (32, 64, 128, 256)
# The kernel packs 64 or 32 outputs together, depending on the CPU.
OUTPUT_STEP = 64


class Codes(NamedTuple):
    """int32 ``codes`` ``(out, in)`` from -8 to 7, and bfloat16 ``(groups, out, 2)`` scales and zeros."""

    codes: torch.Tensor
    scales_and_zeros: torch.Tensor


class Int4Linear(nn.Module):
    """``nn.Linear`` with packed weights; takes and returns bfloat16 ``(.., in)`` and ``(.., out)``."""

    # As of ``Int8Linear``.
    weight: None = None
    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    bias: torch.Tensor | None
    order: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        num_out, num_in = weight.shape
        padded = nn.functional.pad(weight.detach().float(), (0, -num_in % GROUP_SIZE, 0, -num_out % OUTPUT_STEP))
        self._keep(to_codes(padded), num_in, num_out, bias)
        self.register_buffer("order", None)

    @classmethod
    def of_blocks(cls, blocks: Blocks, bias: torch.Tensor | None) -> Int4Linear:
        """The layer whose weight is ``blocks``: their codes as they are, steps and borders rounded to bfloat16."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        num_out, num_in = blocks.codes.shape
        layer._keep(padded_codes(blocks), num_in, num_out, bias)
        layer.register_buffer("order", blocks.order)
        return layer

    def _keep(self, coded: Codes, num_in: int, num_out: int, bias: torch.Tensor | None) -> None:
        self.in_features, self.out_features = num_in, num_out
        self.group_size = group_size_of(num_in, len(coded.scales_and_zeros))
        self._padding = -num_in % self.group_size
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(coded.codes + 8, 1)
        self.register_buffer("packed", packed)
        self.register_buffer("scales_and_zeros", coded.scales_and_zeros)
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, self.in_features)
        if self.order is not None:
            rows = rows.index_select(1, self.order)
        rows = nn.functional.pad(rows, (0, self._padding)).contiguous()
        outputs: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.packed, self.group_size, self.scales_and_zeros
        )
        outputs = outputs[:, : self.out_features]
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def int4_bytes(num_in: int, num_out: int, has_bias: bool, group_size: int = GROUP_SIZE) -> int:
    """Memory of a layer: half a byte per weight, a scale and a zero for each group, a bias."""
    groups, outputs = -(-num_in // group_size), -(-num_out // OUTPUT_STEP) * OUTPUT_STEP
    return groups * outputs * (group_size // 2 + 4) + 2 * num_out * has_bias


def group_size_of(num_in: int, num_groups: int) -> int:
    """Inputs of a group; only groups of ``GROUP_SIZE`` may be filled up, and then hold fewer inputs each."""
    size, rest = divmod(num_in, num_groups)
    return size if rest == 0 and size in GROUP_SIZES else GROUP_SIZE


def padded_codes(blocks: Blocks) -> Codes:
    """``blocks``, whose groups are of one of ``GROUP_SIZES``, with outputs of zeros up to a whole step."""
    scales, zeros = rounded(blocks)
    filling = -len(blocks.codes) % OUTPUT_STEP
    both = nn.functional.pad(torch.stack((scales, zeros), dim=-1), (0, 0, 0, 0, 0, filling))
    codes = nn.functional.pad(blocks.codes.to(torch.int32) - 8, (0, 0, 0, filling))
    return Codes(codes, both.transpose(0, 1).contiguous())


def largest_difference(blocks: Blocks) -> float:
    """How far a weight of ``blocks`` can be from the one that a layer of them computes with: at its ends."""
    scales, zeros = rounded(blocks)
    first = (zeros - 8 * scales.float()) - blocks.borders
    last = first + 15 * (scales.float() - blocks.steps)
    return float(torch.maximum(first.abs(), last.abs()).max())


def rounded(blocks: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zeros in bfloat16, ``(out, groups)``."""
    return blocks.steps.to(torch.bfloat16), (blocks.borders + 8 * blocks.steps).to(torch.bfloat16)


def to_codes(weight: torch.Tensor) -> Codes:
    """``in`` is a multiple of ``GROUP_SIZE``. Codes are rounded against the scale as it is stored."""
    grouped = weight.view(weight.shape[0], -1, GROUP_SIZE)
    least, largest = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scales = ((largest - least) / 15).clamp(min=torch.finfo(torch.bfloat16).tiny).to(torch.bfloat16)
    zeros = (least + 8 * scales.float()).to(torch.bfloat16)
    codes = ((grouped - zeros.float()) / scales.float()).round().clamp(-8, 7)
    both = torch.cat([scales, zeros], dim=-1).transpose(0, 1).contiguous()
    return Codes(codes.view_as(weight).to(torch.int32), both)
