"""Linear layers on the CPU, their weights laid out once for the matrix kernels.

bfloat16: from a plain weight oneDNN makes its own layout anew at every pass, which a step of a few
rows pays for in full. float32: MKL multiplies a few rows up to twice as fast by a weight that lies
transposed. A weight of its own layout belongs to its process: workers share the pages of plain
ones, so with several of them packing costs memory (docs/models.md). Same results but for rounding.
Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from app.core.settings import Settings
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.int8_linear import Int8VectorLinear
from app.models.weights.int8_plain import PlainInt8Linear
from app.models.weights.quantization import replace

# The layout depends on it only slightly; results do not.
TYPICAL_ROWS = 16
Place: TypeAlias = tuple[nn.Module, str]


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


def is_packed(checkpoint: Checkpoint) -> bool:
    """Whether a linear layer is laid out for the kernels."""
    return next(packed_places(checkpoint.model), None) is not None


def unpack_in_pieces(checkpoint: Checkpoint, pause: Callable[[], None]) -> list[Place]:
    """Undo ``pack``, ``pause`` behind each layer: the model computes the same at any time. What was packed.

    Codes of 8 bits are laid out as weights are, too (``int8_plain``).
    """
    places = list(packed_places(checkpoint.model))
    for parent, name in places:
        layer = unpacked(getattr(parent, name))
        if linear_is_tied(checkpoint, parent, name):
            cast(Any, layer).weight = cast(Any, checkpoint.model.get_input_embeddings()).weight
        setattr(parent, name, layer)
        del layer
        pause()
    return places


def pack_in_pieces(checkpoint: Checkpoint, places: list[Place], pause: Callable[[], None]) -> None:
    """Pack ``places`` again, as ``pack`` does."""
    for parent, name in places:
        layer = getattr(parent, name)
        made = packed_again(layer, checkpoint.dtype)
        hand_on_hooks(layer, made)
        setattr(parent, name, made)
        del layer, made
        pause()


def packed_again(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A layer that was unpacked, as it was before."""
    if isinstance(layer, PlainInt8Linear):
        return layer.packed_again()
    linear = cast(nn.Linear, layer)
    return transposed(linear) if dtype == torch.float32 else PackedLinear(linear)


def packed_places(model: nn.Module) -> Iterator[Place]:
    """The linear layers of another layout than that of their files: what holds them, and their names there."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            is_transposed = type(layer) is nn.Linear and not layer.weight.is_contiguous()
            if isinstance(layer, PackedLinear | Int8VectorLinear) or is_transposed:
                yield parent, name


def unpacked(layer: nn.Module) -> nn.Module:
    """A layer of the same weight, as it lies in files, in memory of its own; hooks go on."""
    made = PlainInt8Linear(layer) if isinstance(layer, Int8VectorLinear) else unpacked_linear(cast(Any, layer))
    hand_on_hooks(layer, made)
    return made


def hand_on_hooks(layer: nn.Module, made: nn.Module) -> None:
    """What is done before and behind ``layer`` is done so with what takes its place."""
    if made is not layer:
        made._forward_pre_hooks.update(layer._forward_pre_hooks)
        made._forward_hooks.update(layer._forward_hooks)


def unpacked_linear(layer: PackedLinear | nn.Linear) -> nn.Linear:
    """A plain linear layer of a weight in another layout."""
    linear = nn.Linear(layer.in_features, layer.out_features, device="meta")
    weight = layer.packed.to_dense() if isinstance(layer, PackedLinear) else layer.weight.detach().contiguous()
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return linear


def linear_is_tied(checkpoint: Checkpoint, parent: nn.Module, name: str) -> bool:
    """Whether the weight of that layer is the embedding's, of which packing made a copy."""
    model, layer = checkpoint.model, getattr(parent, name)
    is_head = layer is model.get_output_embeddings() and not isinstance(layer, Int8VectorLinear)
    return is_head and bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))


def transposed(linear: nn.Linear) -> nn.Linear:
    """The same layer, its weight ``(out, in)`` a view of one that lies ``(in, out)`` in memory."""
    linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t(), requires_grad=False)
    return linear
