"""Linear layers in 16 bits on processors that have no matrix kernels for them. Inference thread only.

There torch multiplies a few rows as fast as memory goes, but each further row costs as much as the first: 130 tokens
take four times as long as in float32 (docs/performance.md). So several rows are multiplied in float32, by parts of the
weight that are widened for that pass, while they are in the processor's cache. Products of 16-bit numbers are exact in
float32 and were summed in it before: same results but for rounding.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from app.models.checkpoint.loader import Checkpoint
from app.models.weights.quantization import as_linear, replace

# Fewer rows are faster as they are: three of them take 0.9 to 1.3 times as long here, four 1.2 to 1.3 times.
LEAST_ROWS = 4
# Weights of a part, 4 MiB in float32; half and twice that are as fast.
PART_NUMBERS = 1 << 20


class WideLinear(nn.Linear):
    """``nn.Linear`` on the weight of another one, ``(.., in)`` to ``(.., out)`` in its dtype of 16 bits."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self._part_outputs = max(PART_NUMBERS // layer.in_features, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.numel() < LEAST_ROWS * self.in_features:
            return linear(inputs, self.weight, self.bias)
        rows = inputs.reshape(-1, self.in_features).float()
        parts = torch.split(self.weight, self._part_outputs)
        biases = [None] * len(parts) if self.bias is None else torch.split(self.bias, self._part_outputs)
        found = [wide_product(rows, *pair, inputs.dtype) for pair in zip(parts, biases, strict=True)]
        outputs = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        return outputs.view(*inputs.shape[:-1], self.out_features)


def wide_product(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Float32 ``rows`` ``(rows, in)`` by ``weight`` ``(out, in)`` of 16 bits; rounded once, to ``dtype``."""
    return linear(rows, weight.float(), None if bias is None else bias.float()).to(dtype)


def wants_widening(checkpoint: Checkpoint) -> bool:
    """Whether this processor multiplies many rows of the model's dtype slowly, and all weights are in memory."""
    is_whole = getattr(checkpoint.model, "hf_device_map", None) is None
    return is_whole and checkpoint.device.type == "cpu" and not has_kernels_for(checkpoint.dtype)


@cache
def has_kernels_for(dtype: torch.dtype) -> bool:
    """Whether oneDNN has matrix kernels for it; not asked where nobody measured what there is without."""
    kernels = torch.ops.mkldnn
    if platform.machine() != "x86_64" or not hasattr(kernels, "_is_mkldnn_bf16_supported"):
        return True
    if dtype == torch.bfloat16:
        return bool(kernels._is_mkldnn_bf16_supported())
    return dtype != torch.float16 or bool(kernels._is_mkldnn_fp16_supported())


def widen(checkpoint: Checkpoint) -> None:
    """Put layers that widen in the place of the linear ones of ``checkpoint.model``; weights stay where they are."""
    replace(checkpoint.model, Conv1D, as_linear)
    replace(checkpoint.model, nn.Linear, WideLinear)
