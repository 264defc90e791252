"""Finds the tensors that mean one weight, and holds their shapes against each other. Pure functions of headers.

Everything is a stranger's: what does not fit is a ``ModelLoadError`` that names the layer. What a weight takes is
bounded by its file: no shape is taken from a place where it is not a tensor's own, or held against one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from app.core.errors import ModelLoadError
from app.core.states import QuantizedBy
from app.models.checkpoint.prequantized.coded_weight import CodedWeight
from app.models.checkpoint.prequantized.float_layouts import (
    MX_GROUP,
    Float8Weight,
    Largest,
    MxWeight,
    NormalFloatWeight,
)
from app.models.checkpoint.prequantized.integer_layouts import (
    AwqWeight,
    ByteWeight,
    GptqWeight,
    PackedWeight,
    Tensors,
)
from app.models.checkpoint.prequantized.quantization_recipe import Recipe, shown
from app.models.checkpoint.prequantized.stored_tensors import Stored

FLOATS = ("F16", "BF16", "F32")
FLOAT8 = "F8_E4M3"
MAX_STATE_BYTES = 10_000
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


class Layer:
    """The tensors of one layer by the ends of their names; those that were taken are told."""

    def __init__(self, name: str, stored: dict[str, Stored]):
        self.name, self._stored = name, stored
        self.taken: list[str] = []

    def find(self, end: str, dtypes: tuple[str, ...]) -> Stored | None:
        """The tensor whose name ends so. Raises ``ModelLoadError`` for another dtype."""
        found = self._stored.get(self.name + end)
        if found is None:
            return None
        if found.dtype not in dtypes:
            raise ModelLoadError(f"{found.name[:100]} is in {shown(found.dtype)}, not in {' or '.join(dtypes)}")
        self.taken.append(found.name)
        return found

    def take(self, end: str, dtypes: tuple[str, ...]) -> Stored:
        """The same; raises ``ModelLoadError`` where there is none."""
        found = self.find(end, dtypes)
        if found is None:
            raise ModelLoadError(f"{self.name[:100]} has no {end.lstrip('.')}")
        return found

    def require(self, is_right: bool, *tensors: Stored | None) -> None:
        """Raise ``ModelLoadError`` unless the shapes of ``tensors`` fit each other."""
        if not is_right:
            told = ", ".join(f"{one.name.rpartition('.')[2]} {list(one.shape)}" for one in tensors if one is not None)
            raise ModelLoadError(f"the tensors of {self.name[:100]} do not fit each other: {told[:200]}")


def awq(layer: Layer, recipe: Recipe) -> CodedWeight:
    """A layer of AutoAWQ's, from ``qweight``."""
    codes, zeros, scales = _of_words(layer)
    (num_in, num_words), num_groups = codes.shape, scales.shape[0]
    fits = zeros.shape == (num_groups, num_words) and scales.shape == (num_groups, num_words * 8)
    layer.require(fits and 0 < num_groups <= num_in and num_in % num_groups == 0, codes, zeros, scales)
    _check_group(layer, recipe, num_in, num_groups)
    return AwqWeight(layer.name, Tensors(codes, scales, zeros))


def gptq(layer: Layer, recipe: Recipe) -> CodedWeight:
    """A layer of AutoGPTQ's or GPTQModel's, from ``qweight``."""
    codes, zeros, scales = _of_words(layer)
    groups = layer.find(".g_idx", ("I32", "I64"))
    (num_words, num_out), num_groups = codes.shape, scales.shape[0]
    if groups is None:
        num_bits = min(recipe.bits, default=4)
    else:
        layer.require(len(groups.shape) == 1 and groups.shape[0] > 0, groups)
        num_bits = num_words * 32 // groups.shape[0]
    _check_bits(layer, recipe, num_bits)
    num_in = num_words * 32 // num_bits
    fits = scales.shape == (num_groups, num_out) and zeros.shape == (num_groups, -(-num_out * num_bits // 32))
    fits = fits and (groups.shape == (num_in,) if groups is not None else num_in % max(num_groups, 1) == 0)
    layer.require(fits and 0 < num_groups <= num_in, codes, zeros, scales, groups)
    _check_group(layer, recipe, num_in, num_groups)
    return GptqWeight(layer.name, Tensors(codes, scales, zeros, groups), num_bits, recipe.zero_shift)


def packed(layer: Layer, recipe: Recipe) -> CodedWeight:
    """A layer of compressed-tensors', from ``weight_packed``."""
    codes, scales = layer.take(".weight_packed", ("I32",)), layer.take(".weight_scale", FLOATS)
    told = layer.take(".weight_shape", ("I64", "I32"))
    zeros, groups = layer.find(".weight_zero_point", ("I32",)), layer.find(".weight_g_idx", ("I32", "I64"))
    layer.require(len(codes.shape) == len(scales.shape) == 2 and told.shape == (2,), codes, scales, told)
    num_out, num_in = (int(size) for size in told.read())
    num_words, num_groups = codes.shape[1], scales.shape[1]
    found = [bits for bits in (4, 8) if num_words == -(-num_in * bits // 32)]
    if len(found) != 1 or num_out != codes.shape[0] or num_in < 1:
        raise ModelLoadError(f"{told.name[:100]} says {num_out} x {num_in}, weight_packed is {list(codes.shape)}")
    _check_bits(layer, recipe, found[0])
    fits = scales.shape[0] == num_out and 0 < num_groups <= num_in
    fits = fits and (zeros is None or zeros.shape == (-(-num_out * found[0] // 32), num_groups))
    fits = fits and (groups.shape == (num_in,) if groups is not None else num_in % max(num_groups, 1) == 0)
    layer.require(fits, codes, scales, zeros, groups)
    _check_group(layer, recipe, num_in, num_groups)
    return PackedWeight(layer.name, Tensors(codes, scales, zeros, groups), (num_out, num_in), found[0])


def scaled(layer: Layer, recipe: Recipe) -> CodedWeight:
    """A layer whose ``weight`` is int8 or 8-bit floats, with a scale beside it."""
    codes = layer.take(".weight", ("I8", FLOAT8))
    layer.require(len(codes.shape) == 2 and min(codes.shape) > 0, codes)
    if recipe.method == "bitsandbytes":
        scales = layer.take(".SCB", FLOATS)
        layer.find(".weight_format", ("U8",))
        layer.require(codes.dtype == "I8" and scales.shape == (codes.shape[0],), codes, scales)
        return ByteWeight(layer.name, Tensors(codes, scales), divisor=127.0)
    kinds = (*FLOATS, "U8", "F8_E8M0") if codes.dtype == FLOAT8 else FLOATS
    scales = layer.find(".weight_scale_inv", kinds) or layer.take(".weight_scale", kinds)
    block = next((one for one in recipe.blocks if scales.shape == _num_blocks(codes.shape, one)), None)
    if codes.dtype == FLOAT8:
        layer.require(block is not None or _is_for_rows(codes, scales), codes, scales)
        return Float8Weight(codes, scales, block)
    zeros, groups = layer.find(".weight_zero_point", ("I8",)), layer.find(".weight_g_idx", ("I32", "I64"))
    fits = _is_for_rows(codes, scales) and (zeros is None or math.prod(zeros.shape) == math.prod(scales.shape))
    layer.require(fits and (groups is None or groups.shape == codes.shape[1:]), codes, scales, zeros, groups)
    return ByteWeight(layer.name, Tensors(codes, scales, zeros, groups))


def normal_float(layer: Layer, _recipe: Recipe) -> CodedWeight:
    """A layer of bitsandbytes' with 4 bits, from ``weight.absmax``."""
    codes, values = layer.take(".weight", ("U8", *FLOATS)), layer.take(".weight.absmax", ("F32", "U8"))
    table = layer.take(".weight.quant_map", ("F32",))
    ends = [f".weight.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4")]
    states = [found for end in ends if (found := layer.find(end, ("U8",))) is not None]
    layer.require(len(states) == 1 and table.shape == (16,), table, *states)
    state = _state_of(states[0])
    shape, block_size = state["shape"], state["blocksize"]
    num_values, item_bytes = math.prod(shape), {"U8": 1, "F32": 4}.get(codes.dtype, 2)
    num_blocks = -(-num_values // block_size)
    fits = math.prod(codes.shape) * item_bytes == -(-num_values // 2) and values.shape == (num_blocks,)
    layer.require(fits, codes, values, table)
    largest = Largest(values)
    if values.dtype == "U8":
        scales, inner = layer.take(".weight.nested_absmax", ("F32",)), layer.take(".weight.nested_quant_map", ("F32",))
        size = state["nested_blocksize"]
        layer.require(scales.shape == (-(-num_blocks // size),) and inner.shape == (256,), values, scales, inner)
        largest = Largest(values, inner, scales, size, state["nested_offset"])
    return NormalFloatWeight(codes, shape, table, largest, block_size)


def mx_experts(layer: Layer, _recipe: Recipe) -> CodedWeight:
    """gpt-oss' experts, from ``.._blocks``."""
    blocks, scales = layer.take("_blocks", ("U8",)), layer.take("_scales", ("U8",))
    fits = len(blocks.shape) == 4 and blocks.shape[3] * 2 == MX_GROUP and scales.shape == blocks.shape[:3]
    layer.require(fits and min(blocks.shape, default=0) > 0, blocks, scales)
    return MxWeight(blocks, scales)


def _of_words(layer: Layer) -> tuple[Stored, Stored, Stored]:
    """Codes, zeros and scales of AWQ and GPTQ."""
    codes, zeros = layer.take(".qweight", ("I32",)), layer.take(".qzeros", ("I32",))
    scales = layer.take(".scales", FLOATS)
    layer.require(all(len(one.shape) == 2 and min(one.shape) > 0 for one in (codes, zeros, scales)), codes, scales)
    return codes, zeros, scales


def _check_bits(layer: Layer, recipe: Recipe, num_bits: int) -> None:
    if num_bits not in (recipe.bits or (4, 8)):
        told = " or ".join(map(str, sorted(recipe.bits or (4, 8))))
        raise ModelLoadError(f"{layer.name[:100]} has {num_bits} bits by its tensors' shapes, not {told}")


def _check_group(layer: Layer, recipe: Recipe, num_in: int, num_groups: int) -> None:
    """What the config says of groups holds of the layer."""
    counts = {1 if size == -1 else -(-num_in // size) for size in recipe.group_sizes}
    if counts and num_groups not in counts:
        told = " or ".join(map(str, sorted(recipe.group_sizes)))
        raise ModelLoadError(
            f"{layer.name[:100]} has {num_groups} groups for {num_in} inputs, its quantization_config says {told} each"
        )


def _num_blocks(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def _is_for_rows(codes: Stored, scales: Stored) -> bool:
    """Whether there is a scale for all, for each output, or for each group of an output's inputs."""
    num_out, num_in = codes.shape
    if scales.shape in ((), (1,), (1, 1), (num_out,)):
        return True
    is_wide = len(scales.shape) == 2 and scales.shape[0] == num_out
    return is_wide and scales.shape[1] > 0 and num_in % scales.shape[1] == 0


def _state_of(stored: Stored) -> dict[str, Any]:
    """What bitsandbytes keeps beside the tensors, as JSON in bytes. Raises ``ModelLoadError``."""
    fault = ModelLoadError(f"{stored.name[:100]} is no state of bitsandbytes'")
    if len(stored.shape) != 1 or stored.shape[0] > MAX_STATE_BYTES:
        raise fault
    try:
        state = json.loads(bytes(stored.read().numpy()))
        shape, size = state["shape"], state["blocksize"]
        inner, offset = state.get("nested_blocksize", 256), float(state.get("nested_offset", 0.0))
        is_right = len(shape) == 2 and all(type(one) is int and 1 <= one < 2**31 for one in shape)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise fault from None
    if not is_right or {type(size), type(inner)} != {int} or not {size, inner} <= set(BLOCK_SIZES):
        raise fault
    if not math.isfinite(offset):
        raise fault
    return {"shape": tuple(shape), "blocksize": size, "nested_blocksize": inner, "nested_offset": offset}


# What reads a layer, by how the name of one of its tensors ends.
FINDERS: dict[QuantizedBy, dict[str, Callable[[Layer, Recipe], CodedWeight]]] = {
    "awq": {".qweight": awq},
    "gptq": {".qweight": gptq},
    "compressed-tensors": {".weight_packed": packed, ".weight_scale": scaled},
    "fp8": {".weight_scale_inv": scaled, ".weight_scale": scaled},
    "bitsandbytes": {".weight.absmax": normal_float, ".SCB": scaled},
    "mxfp4": {"_blocks": mx_experts},
}


def find_layers(stored: dict[str, Stored], recipe: Recipe) -> Iterator[tuple[str, CodedWeight, list[str]]]:
    """The name of each weight, what means it, and the tensors that do. Raises ``ModelLoadError``."""
    finders, done = FINDERS[recipe.method], set[str]()
    for name in stored:
        end = next((end for end in finders if name.endswith(end)), None)
        if end is None or (module := name.removesuffix(end)) in done:
            continue
        finder = finders[end]
        if end == ".weight_scale" and f"{module}.weight_packed" in stored:
            finder = packed
        done.add(module)
        layer = Layer(module, stored)
        found = finder(layer, recipe)
        yield (module if end == "_blocks" else f"{module}.weight"), found, layer.taken
