"""A linear layer with 8-bit weights and 8-bit inputs, for CPUs that multiply bytes in tiles (AMX).

Each output has a scale for its weights and each row of the input one of its own, so a row's result
does not depend on what shares its pass. oneDNN multiplies; scales and bias are applied behind it in
float32. torch's older int8 engine knows no tiles: behind 16 rows it is slower than bfloat16.
Figures in docs/performance.md. Inference thread only.
"""

from __future__ import annotations

import torch
from torch import nn

LARGEST = 127
# Inputs are unsigned around this code.
ZERO = 128
# Below every real weight; an output whose weights are all zero has a scale too.
LEAST_PEAK = 1e-30


class Int8TileLinear(nn.Module):
    """``nn.Linear`` with packed weights; takes float ``(.., in)``, returns float32 ``(.., out)``."""

    packed: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    offset: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=LEAST_PEAK) / LARGEST
        codes = (weight / scales[:, None]).round().to(torch.int8).contiguous()
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(codes, None), persistent=False)
        # The step of a row is its peak / LARGEST; the second part of that stands here.
        self.register_buffer("scales", scales / LARGEST)
        self.register_buffer("zeros", torch.zeros(self.out_features, dtype=torch.int32))
        # Conversion to integers cuts off, so half a step more rounds.
        self.register_buffer("offset", torch.tensor(ZERO + 0.5))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, self.in_features).float()
        peaks = rows.abs().amax(dim=1, keepdim=True)
        # A row of zeros gets codes that mean nothing, and is multiplied by its peak, 0, in the end.
        codes = torch.addcdiv(self.offset, rows, peaks, value=LARGEST).to(torch.uint8)
        outputs: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, ZERO, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        outputs = outputs.mul_(peaks) if self.bias is None else torch.addcmul(self.bias, outputs, peaks)
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def has_tiles() -> bool:
    """Whether this CPU multiplies 8-bit integers in tiles, and this build of torch lets us."""
    return torch.cpu._is_amx_tile_supported() and hasattr(torch.ops.onednn, "qlinear_pointwise")
