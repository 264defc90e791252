"""Weights of linear layers in 8 bits on a GPU, by torchao: codes with a scale for each output, products in 16 bits.

A compiled product reads half of what one in 16 bits does. A plain one first writes its weights in 16 bits, so that
memory alone is saved. Has not run on a GPU. Inference thread only.
"""

from __future__ import annotations

import torch
from torch import nn

from app.core.errors import ModelLoadError
from app.models.checkpoint.loader import Checkpoint

# By what QUANTIZATION says: the class of torchao's that says what becomes of a layer.
CONFIGS = {"int8": "Int8WeightOnlyConfig", "fp8": "Float8WeightOnlyConfig"}


def quantize_by_torchao(checkpoint: Checkpoint, kind: str) -> None:
    """Have the linear layers of ``checkpoint.model`` keep their weights as ``kind``, in place.

    Experts that are no linear layers keep their own. Raises ``ModelLoadError`` where torchao is not installed or
    has no such form.
    """
    if kind not in CONFIGS:
        raise ModelLoadError(f"FORKLIFT_QUANTIZATION={kind} works on the CPU only; on a GPU: int8 and fp8")
    try:
        from torchao import quantization
    except ImportError as error:
        raise ModelLoadError(
            f"FORKLIFT_QUANTIZATION={kind} on a GPU needs torchao: pip install 'forklift-serve[torchao]'"
        ) from error
    make = getattr(quantization, CONFIGS[kind], None)
    if make is None:
        raise ModelLoadError(f"FORKLIFT_QUANTIZATION={kind}: this torchao has no {CONFIGS[kind]}")
    # Its settings for inductor would have every kernel tried in many shapes: minutes of each load.
    quantization.quantize_(checkpoint.model, make(set_inductor_config=False), lambda one, _name: can_become(one, kind))


def can_become(module: nn.Module, kind: str) -> bool:
    """Whether it is a linear layer that torchao's form can stand for.

    An output without weights, as of a token that pads, has no range: FP8 makes NaN of it (torchao 0.18).
    """
    if type(module) is not nn.Linear:
        return False
    return kind != "fp8" or bool((module.weight.detach().abs().amax(1) > 0).all())


def weight_bytes(weight: torch.Tensor) -> int:
    """Memory of a weight; torchao's are tensors made of others, and say the size of what they stand for."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.numel() * weight.element_size()
    names, _ = weight.__tensor_flatten__()
    return sum(weight_bytes(getattr(weight, name)) for name in names)
