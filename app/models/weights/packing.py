"""Linear layers on the CPU, their weights laid out once for the matrix kernels.

bfloat16: from a plain weight oneDNN makes its own layout anew at every pass, which a step of a few
rows pays for in full. float32: MKL multiplies a few rows up to twice as fast by a weight that lies
transposed; by a large one oneDNN multiplies four rows and more in its own layout, up to three times as fast again, one
row no faster (docs/performance.md). A weight of its own layout belongs to its process: workers share the pages of
plain ones, so with several of them packing costs memory (docs/models.md). Same results but for rounding.
Inference thread only.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import linear

from app.core.settings import Settings
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.int8_linear import Int8VectorLinear
from app.models.weights.int8_plain import PlainInt8Linear
from app.models.weights.quantization import replace

# The layout depends on it; results do not. float32 laid out for more rows takes up to 1.7 times as long for one.
TYPICAL_ROWS = {torch.bfloat16: 16, torch.float32: 1}
# Of a weight in float32: a smaller one is multiplied sooner by MKL than a call of oneDNN begins.
LEAST_BYTES = 2 << 20
# Rows that decode together, or tokens of texts, where it pays.
MANY_ROWS = 4


class PackedLinear(nn.Module):
    """``nn.Linear`` on a weight in oneDNN's layout; takes and gives ``(.., in)`` and ``(.., out)`` of its dtype."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        weight = layer.weight.detach()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS[weight.dtype])
        self.packed: torch.Tensor | None
        self.register_buffer("packed", packed, persistent=False)
        self.unpacked: torch.Tensor | None
        self.register_buffer("unpacked", None, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The weight ``(out, in)``. A family that looks at it does so in every pass: it serves from now on."""
        if self.unpacked is None:
            dense = self.dense
            self.packed, self.unpacked = None, turned(dense) if dense.dtype == torch.float32 else dense
        return self.unpacked

    @property
    def dense(self) -> torch.Tensor:
        """A copy of the weight, as it lies in files."""
        if self.packed is None:
            assert self.unpacked is not None
            return self.unpacked.contiguous()
        weight: torch.Tensor = self.packed.to_dense()
        return weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.packed is None:
            return linear(inputs, self.weight, self.bias)
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


def has_kernels(dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether this processor and this build of torch have oneDNN's kernels for weights of ``dtype`` in its layout.

    On other processors than x86-64 float32 was not measured.
    """
    kernels = torch.ops.mkldnn
    if dtype not in TYPICAL_ROWS or not hasattr(kernels, "_linear_pointwise"):
        return False
    if dtype == torch.float32:
        return platform.machine() == "x86_64" and bool(torch._C._has_mkldnn)
    return bool(kernels._is_mkldnn_bf16_supported())


def pack(checkpoint: Checkpoint, *, num_rows: int) -> None:
    """Lay out the linear layers of ``checkpoint.model`` in place; whoever shares a weight keeps the plain one.

    bfloat16 where the processor has kernels for it, and float32; other dtypes have no better layout. ``num_rows``: how
    many tokens a pass has at most, but for prompts.
    """
    if checkpoint.dtype == torch.float32:
        replace(checkpoint.model, nn.Linear, laid_out if num_rows >= MANY_ROWS else transposed)
    elif has_kernels(checkpoint.dtype):
        replace(checkpoint.model, nn.Linear, PackedLinear)


def laid_out(layer: nn.Linear) -> nn.Module:
    """The same layer in float32, its weight as many rows are multiplied by it soonest."""
    is_large = layer.weight.dtype == torch.float32 and layer.weight.nbytes >= LEAST_BYTES
    return PackedLinear(layer) if is_large and has_kernels(torch.float32) else transposed(layer)


def is_packed(checkpoint: Checkpoint) -> bool:
    """Whether a linear layer is laid out for the kernels."""
    return next(packed_places(checkpoint.model), None) is not None


@dataclass(frozen=True)
class Place:
    """Where a layer is that was packed, and how: the layer ``name`` of ``parent``."""

    parent: nn.Module
    name: str
    pack: Callable[[Any], nn.Module]


def unpack_in_pieces(checkpoint: Checkpoint, pause: Callable[[], None]) -> list[Place]:
    """Undo ``pack``, ``pause`` behind each layer: the model computes the same at any time. What was packed.

    Codes of 8 bits are laid out as weights are, too (``int8_plain``).
    """
    places = list(packed_places(checkpoint.model))
    for place in places:
        layer = unpacked(getattr(place.parent, place.name))
        if linear_is_tied(checkpoint, place.parent, place.name):
            cast(Any, layer).weight = cast(Any, checkpoint.model.get_input_embeddings()).weight
        setattr(place.parent, place.name, layer)
        del layer
        pause()
    return places


def pack_in_pieces(places: list[Place], pause: Callable[[], None]) -> None:
    """Pack ``places`` again, each as it was."""
    for place in places:
        layer = getattr(place.parent, place.name)
        made = place.pack(layer)
        hand_on_hooks(layer, made)
        setattr(place.parent, place.name, made)
        del layer, made
        pause()


def packed_places(model: nn.Module) -> Iterator[Place]:
    """The linear layers of another layout than that of their files."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, PackedLinear):
                yield Place(parent, name, PackedLinear)
            elif isinstance(layer, Int8VectorLinear):
                yield Place(parent, name, PlainInt8Linear.packed_again)
            elif type(layer) is nn.Linear and not layer.weight.is_contiguous():
                yield Place(parent, name, transposed)


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
    made = nn.Linear(layer.in_features, layer.out_features, device="meta")
    weight = layer.dense if isinstance(layer, PackedLinear) else layer.weight.detach().contiguous()
    made.weight, made.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return made


def linear_is_tied(checkpoint: Checkpoint, parent: nn.Module, name: str) -> bool:
    """Whether the weight of that layer is the embedding's, of which packing made a copy."""
    model, layer = checkpoint.model, getattr(parent, name)
    is_head = layer is model.get_output_embeddings() and not isinstance(layer, Int8VectorLinear)
    return is_head and bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))


def transposed(layer: nn.Linear) -> nn.Linear:
    """The same layer, its weight ``(out, in)`` a view of one that lies ``(in, out)`` in memory."""
    layer.weight = nn.Parameter(turned(layer.weight.detach()), requires_grad=False)
    return layer


def turned(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` ``(out, in)``, which lies ``(in, out)`` in memory."""
    return weight.t().contiguous().t()
