"""8-bit and 4-bit linear layers on the CPU. Inference thread only.

int8: weights and activations are 8 bits wide, the rest computes in float32. Where several rows share
a step and the CPU has tiles, ``int8_linear`` computes them; else torch's dynamic quantisation with its
x86 engine, which reads the weights for one row faster, but rounds each row of a pass by the range of
all: its output is close to, not equal to, that of the same request alone.
int4: weights only, see ``int4_linear``; the rest computes in bfloat16, and the output layer is an
int8 one: four bits there cost as much accuracy as in all other layers together. Figures in
docs/models.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from app.core.errors import ModelLoadError
from app.models.int4_linear import Int4Linear
from app.models.int8_linear import Int8TileLinear, has_tiles
from app.models.loader import Checkpoint

ENGINE = "x86"
Int8Linear = torch.ao.nn.quantized.dynamic.Linear
Layer = TypeVar("Layer", bound=nn.Module)


def quantize(checkpoint: Checkpoint, kind: str, num_sequences: int) -> None:
    """Replace the linear layers of ``checkpoint.model`` by ``kind``, "int8" or "int4", in place.

    ``num_sequences`` are decoded together; an encoder reads many rows in any case. The model is on the
    CPU, in the dtype that ``choose_dtype`` names. Raises ``ModelLoadError`` on other devices. An input
    embedding that shares its weight with the output layer keeps a copy of its own in bfloat16: it is
    only looked up.
    """
    if checkpoint.device.type != "cpu":
        raise ModelLoadError(f"FORKLIFT_QUANTIZATION={kind} works on the CPU only so far")
    model = checkpoint.model
    in_tiles = has_tiles() and (num_sequences > 1 or checkpoint.task != "generate")
    replace(model, Conv1D, as_linear)
    if kind == "int8":
        store_in_bfloat16(model.get_input_embeddings())
        to_int8(model, in_tiles=in_tiles)
    else:
        quantize_int4(model, in_tiles=in_tiles)


def quantize_int4(model: PreTrainedModel, *, in_tiles: bool) -> None:
    """int4 for every linear layer but the output layer of a language model, which becomes int8."""
    output = model.get_output_embeddings()
    replace(model, nn.Linear, lambda layer: layer if layer is output else Int4Linear(layer.weight, layer.bias))
    if isinstance(output, nn.Linear):
        # Whoever shares the weight keeps the bfloat16 one.
        output.weight = nn.Parameter(output.weight.detach().float(), requires_grad=False)
        output.bias = None if output.bias is None else nn.Parameter(output.bias.detach().float(), requires_grad=False)
        output.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(),))
        to_int8(model, in_tiles=in_tiles)


def to_int8(model: nn.Module, *, in_tiles: bool) -> None:
    """int8 for every ``nn.Linear``, which holds float32; hooks go on."""
    if in_tiles:
        replace(model, nn.Linear, Int8TileLinear)
        return
    torch.backends.quantized.engine = ENGINE
    per_channel = torch.ao.quantization.per_channel_dynamic_qconfig
    with deprecation_silenced():
        torch.ao.quantization.quantize_dynamic(model, {nn.Linear: per_channel}, dtype=torch.qint8, inplace=True)
    if has_exact_sums():
        for module in model.modules():
            if type(module) is Int8Linear:
                module.__class__ = FullRangeLinear


class FullRangeLinear(Int8Linear):
    """torch's int8 layer with activations of 8 bits, where torch itself takes 7 for fear of old CPUs."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = torch.ops.quantized.linear_dynamic(
            inputs, self._packed_params._packed_params, reduce_range=False
        )
        return outputs


@cache
def has_exact_sums() -> bool:
    """Whether this CPU adds products of 8 bits without a limit (VNNI does; before it, pairs stopped at 16 bits)."""
    torch.backends.quantized.engine = ENGINE
    ones = torch.ones(64, 64)
    with deprecation_silenced():
        weight = torch.quantize_per_tensor(ones, 1 / 127, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    sums = torch.ops.quantized.linear_dynamic(ones, packed, reduce_range=False)
    return bool((sums - 64).abs().max() < 0.5)


@contextmanager
def deprecation_silenced() -> Iterator[None]:
    """torch announces a successor (torchao); it says so once per tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(deprecated|torch.ao.quantization).*")
        yield


def replace(model: nn.Module, kind: type[Layer], make: Callable[[Layer], nn.Module]) -> None:
    """Put ``make(layer)`` in the place of every layer that is a ``kind`` and no subclass of it; hooks go on."""
    found = [(parent, name, layer) for parent in model.modules() for name, layer in parent.named_children()]
    for parent, name, layer in found:
        if isinstance(layer, kind) and type(layer) is kind:
            made = make(layer)
            made._forward_pre_hooks.update(layer._forward_pre_hooks)
            setattr(parent, name, made)


def as_linear(layer: Conv1D) -> nn.Linear:
    """GPT-2's layer, a linear one whose weight lies transposed."""
    num_in, num_out = layer.weight.shape
    linear = nn.Linear(num_in, num_out, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().t(), requires_grad=False)
    linear.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return linear


def store_in_bfloat16(embedding: nn.Embedding) -> None:
    """Give ``embedding`` a weight of its own in bfloat16; what it returns keeps its dtype."""
    dtype = embedding.weight.dtype
    embedding.weight = nn.Parameter(embedding.weight.detach().to(torch.bfloat16), requires_grad=False)
    embedding.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))


def model_bytes(model: nn.Module) -> int:
    """Memory of all weights, packed ones included."""
    total = sum(weight.numel() * weight.element_size() for weight in {*model.parameters(), *model.buffers()})
    for module in model.modules():
        if isinstance(module, Int8Linear):
            total += module.weight().numel()
    return total
