"""bfloat16 linear layers on the CPU, their weights laid out once for the matrix kernels.

From a plain weight oneDNN makes that layout anew at every pass, which a step of a few rows pays for
in full. A packed weight belongs to its process: workers share the pages of plain ones, so with
several of them packing costs memory (docs/models.md). Same results, bit for bit. Inference thread only.
"""

from __future__ import annotations

import torch
from torch import nn

from app.core.settings import Settings
from app.models.loader import Checkpoint
from app.models.quantization import replace

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


def should_pack(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Whether the settings, the device and the dtype ask for packed weights, and nothing else holds them."""
    is_wanted = settings.pack_weights == "always" or (settings.pack_weights == "auto" and settings.workers <= 1)
    is_whole = getattr(checkpoint.model, "hf_device_map", None) is None
    is_plain = settings.quantization == "none" and checkpoint.dtype == torch.bfloat16
    return is_wanted and is_whole and is_plain and checkpoint.device.type == "cpu" and has_kernels()


def has_kernels() -> bool:
    """Whether this processor and this build of torch have oneDNN's bfloat16 kernels."""
    kernels = torch.ops.mkldnn
    return hasattr(kernels, "_linear_pointwise") and bool(kernels._is_mkldnn_bf16_supported())


def pack(checkpoint: Checkpoint) -> None:
    """Replace the linear layers of ``checkpoint.model`` in place; whoever shares a weight keeps the plain one."""
    output = checkpoint.model.get_output_embeddings()
    hooks = dict(output._forward_pre_hooks) if output is not None else {}
    replace(checkpoint.model, nn.Linear, PackedLinear)
    if (packed := checkpoint.model.get_output_embeddings()) is not None:
        packed._forward_pre_hooks.update(hooks)
