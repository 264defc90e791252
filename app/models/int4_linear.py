"""A linear layer with 4-bit weights on the CPU: the arithmetic of FORKLIFT_QUANTIZATION=int4.

A weight is ``code * scale + zero`` with a code from -8 to 7; each output has a scale and a zero
point in bfloat16 per ``GROUP_SIZE`` inputs, chosen so that the group's least and largest weight are
codes: 5 bits per weight in all. Few rows go to torch's kernel, which unpacks a weight for each row
anew; many rows are multiplied by weights unpacked once. Computes in bfloat16. Inference thread only.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

# Mean divergence of the demo model: 0.029 with 32, 0.038 with 64, 0.049 with 128 (docs/models.md).
GROUP_SIZE = 32
# The kernel packs 64 or 32 outputs together, depending on the CPU.
OUTPUT_STEP = 64
# From here on, unpacking a layer once costs less than torch's kernel does (docs/models.md).
MANY_ROWS = 64


class Int4Linear(nn.Module):
    """``nn.Linear`` with packed weights; takes and returns bfloat16 ``(.., in)`` and ``(.., out)``."""

    packed: torch.Tensor
    scales_and_zeros: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._padding = -self.in_features % GROUP_SIZE
        padded = nn.functional.pad(weight.detach().float(), (0, self._padding, 0, -self.out_features % OUTPUT_STEP))
        codes, scales_and_zeros = to_codes(padded)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes + 8, 1)
        self.register_buffer("packed", packed)
        self.register_buffer("scales_and_zeros", scales_and_zeros)
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.pad(inputs.reshape(-1, self.in_features), (0, self._padding)).contiguous()
        width = lane_width()
        outputs = self._by_kernel(rows) if rows.shape[0] < MANY_ROWS or not width else self._unpacked(rows, width)
        outputs = outputs[:, : self.out_features]
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*inputs.shape[:-1], self.out_features)

    def _by_kernel(self, rows: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.packed, GROUP_SIZE, self.scales_and_zeros
        )
        return outputs

    def _unpacked(self, rows: torch.Tensor, width: int) -> torch.Tensor:
        """Product with the weights of whole blocks, ``(blocks, in, 2 * width)``; see ``unpacked_codes``."""
        num_in = rows.shape[1]
        codes = unpacked_codes(self.packed, width)
        num_blocks = codes.shape[0]
        # (groups, out, 2) becomes two of (blocks, groups, 1, width, 2): as the codes lie.
        by_block = self.scales_and_zeros.view(-1, num_blocks, 2, width, 2).permute(4, 1, 0, 3, 2).contiguous()
        scales, zeros = by_block[:, :, :, None]
        weights = torch.addcmul(zeros, codes.view(num_blocks, -1, GROUP_SIZE, width, 2), scales)
        products = torch.matmul(rows, weights.view(num_blocks, num_in, 2 * width))
        return products.view(num_blocks, -1, width, 2).permute(1, 0, 3, 2).reshape(rows.shape[0], -1)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def to_codes(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 codes ``(out, in)`` from -8 to 7, and bfloat16 ``(groups, out, 2)`` scales and zeros.

    ``in`` is a multiple of ``GROUP_SIZE``. Codes are rounded against the scale as it is stored.
    """
    grouped = weight.view(weight.shape[0], -1, GROUP_SIZE)
    least, largest = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scales = ((largest - least) / 15).clamp(min=torch.finfo(torch.bfloat16).tiny).to(torch.bfloat16)
    zeros = (least + 8 * scales.float()).to(torch.bfloat16)
    codes = ((grouped - zeros.float()) / scales.float()).round().clamp(-8, 7)
    both = torch.cat([scales, zeros], dim=-1).transpose(0, 1).contiguous()
    return codes.view_as(weight).to(torch.int32), both


def unpacked_codes(packed: torch.Tensor, width: int) -> torch.Tensor:
    """The codes in bfloat16, ``(blocks, in, width, 2)``: [b, i, l, h] is that of output ``(2b + h) * width + l``.

    A byte holds the codes of two outputs that lie ``width`` apart (torch's int4mm_kernel.cpp).
    """
    pairs = torch.index_select(code_pairs(), 0, packed.flatten().to(torch.int32))
    return pairs.view(torch.bfloat16).view(packed.shape[0] // (2 * width), -1, width, 2)


@cache
def code_pairs() -> torch.Tensor:
    """For each byte its two codes as bfloat16, side by side in one int32: one look-up gives both."""
    byte = torch.arange(256)
    codes = torch.stack([byte % 16, byte // 16], dim=-1) - 8
    return codes.to(torch.bfloat16).view(torch.int32).flatten()


@cache
def lane_width() -> int:
    """How far apart the outputs lie that share a byte: 32 with AVX-512, 16 with AVX2; 0 where it is neither.

    Found by packing known codes, since torch promises no layout.
    """
    codes = torch.randint(0, 16, (OUTPUT_STEP, 4), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    for width in (32, 16):
        found = unpacked_codes(packed, width).permute(0, 3, 2, 1).reshape(OUTPUT_STEP, 4)
        if torch.equal(found, (codes - 8).to(torch.bfloat16)):
            return width
    return 0
