"""Linear layers on the CPU, their weights laid out once for the matrix kernels.

bfloat16: from a plain weight oneDNN makes its own layout anew at every pass, which a step of a few
rows pays for in full. float32: MKL multiplies a few rows up to twice as fast by a weight that lies
transposed. A weight of its own layout belongs to its process: workers share the pages of plain
ones, so with several of them packing costs memory (docs/models.md). Same results but for rounding.
Inference thread only.
"""

from __future__ import annotations

import torch
from torch import nn

from app.core.settings import Settings
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.quantization import replace

# The layout depends on it only slightly; results do not.
TYPICAL_ROWS = 16


class PackedLinear(nn.Module):
    """``nn.Linear`` on a weight in oneDNN's layout; takes and gives ``(.., in)`` and ``(.., out)`` in bfloat16."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        weight = linear.weight.detach()
        self.packed: torch.Tensor
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "")
        return output


def wants_packing(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Whether the settings and the device ask for weights in layouts of this process's own."""
    is_wanted = settings.pack_weights == "always" or (settings.pack_weights == "auto" and settings.workers <= 1)
    is_whole = getattr(checkpoint.model, "hf_device_map", None) is None
    return is_wanted and is_whole and checkpoint.device.type == "cpu"


def owns_weights(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Whether this process gets weights of its own on the CPU: packed ones, or quantised ones."""
    is_quantised = settings.quantization != "none" and checkpoint.device.type == "cpu"
    return is_quantised or wants_packing(checkpoint, settings)


def has_kernels() -> bool:
    """Whether this processor and this build of torch have oneDNN's bfloat16 kernels."""
    kernels = torch.ops.mkldnn
    return hasattr(kernels, "_linear_pointwise") and bool(kernels._is_mkldnn_bf16_supported())


def pack(checkpoint: Checkpoint) -> None:
    """Lay out the linear layers of ``checkpoint.model`` in place; whoever shares a weight keeps the plain one.

    bfloat16 where the processor has kernels for it, and float32; other dtypes have no better layout.
    """
    if checkpoint.dtype == torch.float32:
        replace(checkpoint.model, nn.Linear, transposed)
    elif checkpoint.dtype == torch.bfloat16 and has_kernels():
        replace(checkpoint.model, nn.Linear, PackedLinear)


def transposed(linear: nn.Linear) -> nn.Linear:
    """The same layer, its weight ``(out, in)`` a view of one that lies ``(in, out)`` in memory."""
    linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t(), requires_grad=False)
    return linear
