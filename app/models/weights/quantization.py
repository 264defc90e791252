"""8-bit and 4-bit linear layers: on the CPU ours, elsewhere torchao's. Inference thread only.

int8: weights of 8 bits, inputs of 14 or 16, see ``int8_linear``; the rest computes in float32. Where several
rows share a step and the CPU has tiles, oneDNN multiplies; else fbgemm, which reads the weights for one row faster.
int4: weights only, see ``int4_linear``; the rest computes in bfloat16, and the output layer is an
int8 one: four bits there cost as much accuracy as in all other layers together. Figures in
docs/models.md.
file: layers that came in 4-bit blocks keep their codes, see ``grids``; all others are int8 ones. Computes in bfloat16.
Layers that came in 8 bits with a scale for each output keep their codes wherever they become int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from app.core.errors import ModelLoadError
from app.core.logs.logging import get_logger
from app.core.system.memory.heap import trim_heap
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.unloading import give_back
from app.models.weights.grids import Blocks, Bytes, grid_of
from app.models.weights.int4_linear import GROUP_SIZE, Int4Linear, int4_bytes, largest_difference
from app.models.weights.int8_codes import Codes
from app.models.weights.int8_linear import (
    Int8Linear,
    Int8TileLinear,
    Int8VectorLinear,
    has_tiles,
    has_vectors,
    int8_bytes,
)
from app.models.weights.layer_inputs.calibration import Energies, input_energies
from app.models.weights.torchao_weights import quantize_by_torchao, weight_bytes

Layer = TypeVar("Layer", bound=nn.Module)
# So much of replaced layers may wait to go back to the system: giving back takes milliseconds.
KEPT_BYTES = 16 * 2**20
NONE: Mapping[nn.Module, int] = MappingProxyType({})

log = get_logger("models")


def quantize(checkpoint: Checkpoint, kind: str, num_sequences: int) -> None:
    """Have the linear layers of ``checkpoint.model`` keep their weights as ``kind``, in place, one by one.

    Raises ``ModelLoadError`` where there is no such form for the device or the processor.
    """
    if checkpoint.device.type != "cpu":
        replace(checkpoint.model, Conv1D, as_linear)
        quantize_by_torchao(checkpoint, kind)
        give_back(checkpoint.device)
    elif kind == "fp8":
        raise ModelLoadError("FORKLIFT_QUANTIZATION=fp8 works on GPUs only; on a CPU: int8, int4")
    else:
        quantize_on_cpu(checkpoint, kind, num_sequences)


def quantize_on_cpu(checkpoint: Checkpoint, kind: str, num_sequences: int) -> None:
    """Replace the linear layers by ours, ``kind`` int8, int4 or file.

    ``num_sequences`` are decoded together; an encoder reads many rows in any case. The model is in the dtype that
    ``choose_dtype`` names; ``checkpoint.dtype`` becomes the one that it computes in then. An input embedding keeps a
    weight of its own in bfloat16: it is only looked up. Nothing refers to the checkpoint's file any more.
    """
    if not (has_vectors() or has_tiles()):
        raise ModelLoadError(f"FORKLIFT_QUANTIZATION={kind} needs an x86-64 processor with AVX2")
    model = checkpoint.model
    in_tiles = has_tiles() and (num_sequences > 1 or checkpoint.task not in ("generate", "seq2seq"))
    replace(model, Conv1D, as_linear)
    energies = input_energies(checkpoint)
    if kind == "int4":
        quantize_int4(model, energies)
    elif kind == "file":
        keep_blocks(model, energies, in_tiles=in_tiles)
    # What is left: everything, or an output layer.
    replace(model, nn.Linear, partial(to_int8, energies, in_tiles=in_tiles))
    if kind == "int8":
        compute_in_float32(model)
    else:
        for module in model.modules():
            own_weights(module, None)
    give_back(checkpoint.device)
    checkpoint.dtype = torch.float32 if kind == "int8" else torch.bfloat16


def quantize_int4(model: PreTrainedModel, energies: Energies) -> None:
    """int4 for every linear layer but the output layer of a language model; ``energies`` forget them."""
    output: nn.Module | None = model.get_output_embeddings()

    def to_int4(layer: nn.Linear) -> nn.Module:
        if layer is output:
            return layer
        energies.pop(layer, None)
        return Int4Linear(layer.weight, layer.bias)

    replace(model, nn.Linear, to_int4)


def keep_blocks(model: PreTrainedModel, energies: Energies, *, in_tiles: bool) -> None:
    """The codes of layers that came in 4-bit blocks; others become int8, but for a language model's output layer."""
    output: nn.Module | None = model.get_output_embeddings()
    num_kept, largest = 0, 0.0

    def kept(layer: nn.Linear) -> nn.Module:
        nonlocal num_kept, largest
        grid = grid_of(layer)
        blocks = None if grid is None or grid.bits != 4 else grid.read()
        if layer is output and blocks is None:
            return layer
        if not isinstance(blocks, Blocks):
            made = to_int8(energies, layer, in_tiles=in_tiles)
            made.register_forward_hook(in_bfloat16)
            return made
        energies.pop(layer, None)
        num_kept, largest = num_kept + 1, max(largest, largest_difference(blocks))
        return Int4Linear.of_blocks(blocks, layer.bias)

    replace(model, nn.Linear, kept)
    is_open = type(output) is nn.Linear
    num_int8 = sum(isinstance(module, Int8Linear) for module in model.modules()) + is_open
    log.info("blocks_kept", num_in_4_bits=num_kept, num_in_8_bits=num_int8, largest_difference=f"{largest:.3g}")


def in_bfloat16(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """What a layer gives to others that compute in bfloat16."""
    return output.to(torch.bfloat16)


def to_int8(energies: Energies, layer: nn.Linear, *, in_tiles: bool) -> Int8Linear:
    """The layer with 8-bit weights, for tiles or for vectors; ``energies`` forget it."""
    known, grid = energies.pop(layer, None), grid_of(layer)
    kind = Int8TileLinear if in_tiles else Int8VectorLinear
    found = None if grid is None or grid.bits != 8 else grid.read()
    if not isinstance(found, Bytes):
        return kind(layer, known)
    bias = None if layer.bias is None else layer.bias.detach().float()
    return kind.of_codes(Codes(found.codes, found.scales), layer.in_features, bias)


def compute_in_float32(model: PreTrainedModel) -> None:
    """Float32 for all that is no linear layer; the input embedding stays in bfloat16 and gives float32."""
    embedding = model.get_input_embeddings()
    for module in model.modules():
        own_weights(module, torch.bfloat16 if module is embedding else torch.float32)
    embedding.register_forward_hook(lambda _module, _inputs, output: output.float())


def own_weights(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Copies of ``module``'s own float weights, as ``dtype`` where one is given: those of the file can go."""
    if isinstance(module, Int8Linear | Int4Linear):
        return
    for name, weight in module.named_parameters(recurse=False):
        if weight.is_floating_point():
            copied = weight.detach().to(dtype or weight.dtype, copy=True)
            setattr(module, name, nn.Parameter(copied, requires_grad=False))
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            setattr(module, name, buffer.to(dtype or buffer.dtype, copy=True))


def replace(model: nn.Module, kind: type[Layer], make: Callable[[Layer], nn.Module]) -> None:
    """Put ``make(layer)`` in the place of every layer that is a ``kind`` and no subclass of it; hooks go on.

    A layer's memory is free before the next is made, where nobody else refers to it, and goes back to the system
    now and then: the C library keeps blocks of a few megabytes, and what is made is too small for them.
    """
    num_kept_bytes = 0
    places = [(module, name) for module in model.modules() for name, _ in module.named_children()]
    for parent, name in places:
        layer = getattr(parent, name)
        if isinstance(layer, kind) and type(layer) is kind:
            made = make(layer)
            made._forward_pre_hooks.update(layer._forward_pre_hooks)
            setattr(parent, name, made)
            num_kept_bytes += model_bytes(layer)
            del layer
            if num_kept_bytes >= KEPT_BYTES:
                trim_heap()
                num_kept_bytes = 0


def as_linear(layer: Conv1D) -> nn.Linear:
    """GPT-2's layer, a linear one whose weight lies transposed."""
    num_in, num_out = layer.weight.shape
    linear = nn.Linear(num_in, num_out, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().t(), requires_grad=False)
    linear.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return linear


def model_bytes(model: nn.Module) -> int:
    """Memory of all weights, packed ones included."""
    total = sum(weight_bytes(weight) for weight in {*model.parameters(), *model.buffers()})
    return total + sum(module.num_bytes for module in model.modules() if isinstance(module, Int8Linear))


def quantized_bytes(model: PreTrainedModel, kind: str, in_4_bits: Mapping[nn.Module, int] = NONE) -> int:
    """What ``model_bytes`` will say of ``model``, which may be on ``meta``, once it is ``kind``.

    Which inputs will keep their weights is not known before; they count as none. ``in_4_bits``: the layers that keep
    their blocks, and the inputs of a group of each.
    """
    output = model.get_output_embeddings()
    total = 0
    for module in model.modules():
        if type(module) in (nn.Linear, Conv1D):
            size = GROUP_SIZE if kind == "int4" and module is not output else in_4_bits.get(module)
            count = int8_bytes if size is None else partial(int4_bytes, group_size=size)
            num_in, num_out = reversed(module.weight.shape) if type(module) is nn.Linear else module.weight.shape
            total += count(int(num_in), int(num_out), module.bias is not None)
        else:
            is_plain = kind == "int8" and module is not model.get_input_embeddings()
            item_bytes = 4 if is_plain else 2
            total += sum(weight.numel() * item_bytes for weight in module.parameters(recurse=False))
            total += sum(buffer.numel() * buffer.element_size() for buffer in module.buffers(recurse=False))
    return total
