"""int8 on the CPU: linear layers with 8-bit weights, activations quantised as they come.

torch's dynamic quantisation with its x86 engine (oneDNN behind it was slower at one row, its
weight-only kernel at many; figures in docs/performance.md). It computes in float32, so a pass
over several rows rounds each row by the range of all: int8 output is close to, not equal to,
that of the same request alone. Inference thread only.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from app.core.errors import ModelLoadError
from app.models.loader import Checkpoint

ENGINE = "x86"


def quantize_int8(checkpoint: Checkpoint) -> None:
    """Replace the linear layers of ``checkpoint.model``, which holds float32 on the CPU, in place.

    An input embedding that shares its weight with the output layer keeps a copy of its own in
    bfloat16: it is only looked up. Raises ``ModelLoadError`` on other devices.
    """
    if checkpoint.device.type != "cpu":
        raise ModelLoadError("FORKLIFT_QUANTIZATION=int8 works on the CPU only so far")
    model = checkpoint.model
    torch.backends.quantized.engine = ENGINE
    store_in_bfloat16(model.get_input_embeddings())
    per_channel = torch.ao.quantization.per_channel_dynamic_qconfig
    with warnings.catch_warnings():
        # torch announces a successor (torchao); it says so once per tensor.
        warnings.filterwarnings("ignore", message=".*(deprecated|torch.ao.quantization).*")
        torch.ao.quantization.quantize_dynamic(model, {nn.Linear: per_channel}, dtype=torch.qint8, inplace=True)


def store_in_bfloat16(embedding: nn.Embedding) -> None:
    """Give ``embedding`` a weight of its own in bfloat16; what it returns keeps its dtype."""
    dtype = embedding.weight.dtype
    embedding.weight = nn.Parameter(embedding.weight.detach().to(torch.bfloat16), requires_grad=False)
    embedding.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))


def model_bytes(model: nn.Module) -> int:
    """Memory of all weights, packed int8 ones included."""
    total = sum(weight.numel() * weight.element_size() for weight in {*model.parameters(), *model.buffers()})
    for module in model.modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            total += module.weight().numel()
    return total
