"""What a config's ``quantization_config`` says of the weights beside it, and which of it is not read. No torch.

Only what changes the meaning of tensors is taken from it. Whether a layer is quantised at all, its tensors tell: lists
of layers that are not (``modules_to_not_convert``, ``ignore``) need no reading. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from app.core.errors import ModelLoadError
from app.core.states import QuantizedBy

METHODS: tuple[QuantizedBy, ...] = get_args(QuantizedBy)
LARGEST_GROUP = 1 << 20
MAX_SHOWN_CHARS = 60
# How compressed-tensors keeps weights, of what is read.
FORMATS = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense"}


@dataclass(frozen=True)
class Recipe:
    """``bits`` and ``group_sizes``: what layers may have, as far as the config says; ``blocks``: outputs and inputs
    that share a scale; ``zero_shift``: what zeros were made less by."""

    method: QuantizedBy
    bits: frozenset[int] = frozenset()
    group_sizes: frozenset[int] = frozenset()
    blocks: tuple[tuple[int, int], ...] = ()
    zero_shift: int = 0


def recipe_of(config: dict[str, Any]) -> Recipe:
    """Read a ``quantization_config``. Raises ``ModelLoadError`` that names what is not served."""
    method = config.get("quant_method")
    if method is None and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        method = "bitsandbytes"
    read = READERS.get(method) if isinstance(method, str) else None
    if read is None:
        raise unserved(f"quant_method {shown(method)}")
    return read(config)


def unserved(what: str) -> ModelLoadError:
    """The one line for a variant that is not read here."""
    return ModelLoadError(
        f"its weights are quantised as {what}, which is not read here: "
        f"take its unquantised weights, or a copy in {', '.join(METHODS)} or GGUF"
    )


def shown(value: object) -> str:
    """A stranger's value in a line."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _awq(config: dict[str, Any]) -> Recipe:
    version = str(config.get("version") or config.get("format") or "gemm").lower()
    if version != "gemm" or config.get("backend") == "llm-awq":
        raise unserved(f"AWQ in the layout {shown('llm-awq' if version == 'gemm' else version)} (gemm is)")
    if (bits := config.get("bits", config.get("w_bit", 4))) != 4:
        raise unserved(f"AWQ with {shown(bits)} bits (4 are)")
    return Recipe("awq", frozenset({4}), _group_sizes(config.get("group_size", config.get("q_group_size", 128))))


def _gptq(config: dict[str, Any]) -> Recipe:
    layout = str(config.get("checkpoint_format") or config.get("format") or "gptq")
    if layout not in ("gptq", "gptq_v2") or config.get("is_marlin_format"):
        raise unserved(f"GPTQ in the layout {shown('marlin' if layout.startswith('gptq') else layout)}")
    if config.get("pack_dtype") not in (None, "int32"):
        raise unserved(f"GPTQ in words of {shown(config['pack_dtype'])} (int32 are)")
    if (bits := config.get("bits")) not in (4, 8):
        raise unserved(f"GPTQ with {shown(bits)} bits (4 and 8 are)")
    # With rules of their own layers may have other bits and groups, which their tensors tell.
    is_free = bool(config.get("dynamic"))
    sizes = _group_sizes(config.get("group_size", 128))
    shift = int(layout == "gptq")
    return Recipe("gptq", frozenset() if is_free else frozenset({bits}), frozenset() if is_free else sizes, (), shift)


def _compressed(config: dict[str, Any]) -> Recipe:
    layout = config.get("format")
    if layout not in FORMATS:
        raise unserved(f"compressed-tensors in the format {shown(layout)}")
    sparse = config.get("sparsity_config") or {}
    if not isinstance(sparse, dict) or sparse.get("format", "dense") != "dense":
        raise unserved("compressed-tensors with sparse weights")
    if isinstance(rotations := config.get("transform_config"), dict) and rotations.get("config_groups"):
        raise unserved("compressed-tensors with rotated weights (transform_config)")
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(one, dict) for one in groups.values()):
        raise unserved("compressed-tensors without a table config_groups")
    schemes = [scheme for group in groups.values() if (scheme := group.get("weights")) is not None]
    return Recipe("compressed-tensors", *_of_schemes(schemes))


def _of_schemes(
    schemes: list[Any],
) -> tuple[frozenset[int], frozenset[int], tuple[tuple[int, int], ...]]:
    """Bits, group sizes and blocks of compressed-tensors' weights."""
    bits: set[int] = set()
    sizes: set[int] = set()
    blocks: list[tuple[int, int]] = []
    for scheme in schemes:
        if not isinstance(scheme, dict):
            raise unserved("compressed-tensors whose weights are no table")
        kind, num_bits, strategy = scheme.get("type", "int"), scheme.get("num_bits", 8), scheme.get("strategy")
        if (kind, num_bits) not in (("int", 4), ("int", 8), ("float", 8)):
            raise unserved(f"compressed-tensors with weights of {shown(num_bits)} bits, type {shown(kind)}")
        if strategy not in (None, "tensor", "channel", "group", "block"):
            raise unserved(f"compressed-tensors with a scale for each {shown(strategy)}")
        bits.add(int(num_bits))
        sizes |= _group_sizes(scheme.get("group_size") or -1)
        if (block := scheme.get("block_structure")) is not None:
            blocks.append(_block(block.split("x") if isinstance(block, str) else block))
    return frozenset(bits), frozenset(sizes), tuple(blocks)


def _fp8(config: dict[str, Any]) -> Recipe:
    if (experts := config.get("expert_dtype", "fp8")) != "fp8":
        raise unserved(f"FP8 with experts in {shown(experts)}")
    if (kind := config.get("fmt", "e4m3")) not in ("e4m3", "float8_e4m3fn"):
        raise unserved(f"FP8 in {shown(kind)} (e4m3 is)")
    block = config.get("weight_block_size", (128, 128))
    return Recipe("fp8", frozenset({8}), blocks=() if block is None else (_block(block),))


def _bitsandbytes(config: dict[str, Any]) -> Recipe:
    if config.get("load_in_8bit") or config.get("_load_in_8bit"):
        return Recipe("bitsandbytes", frozenset({8}))
    if (kind := config.get("bnb_4bit_quant_type", "fp4")) not in ("nf4", "fp4"):
        raise unserved(f"bitsandbytes' {shown(kind)} (nf4, fp4 and int8 are)")
    return Recipe("bitsandbytes", frozenset({4}))


def _mxfp4(_config: dict[str, Any]) -> Recipe:
    return Recipe("mxfp4", frozenset({4}))


READERS: dict[str, Callable[[dict[str, Any]], Recipe]] = {
    **{"awq": _awq, "gptq": _gptq, "compressed-tensors": _compressed, "fp8": _fp8, "fbgemm_fp8": _fp8},
    **{"bitsandbytes": _bitsandbytes, "bitsandbytes_4bit": _bitsandbytes, "bitsandbytes_8bit": _bitsandbytes},
    "mxfp4": _mxfp4,
}


def _group_sizes(value: object) -> frozenset[int]:
    """One size; -1: all inputs are one group."""
    if type(value) is not int or not (value == -1 or 1 <= value <= LARGEST_GROUP):
        raise ModelLoadError(f"its quantization_config has the group size {shown(value)}")
    return frozenset({value})


def _block(value: object) -> tuple[int, int]:
    sizes = list(value) if isinstance(value, list | tuple) else []
    numbers = [int(one) if isinstance(one, str) and one.isdecimal() and len(one) < 8 else one for one in sizes]
    if len(numbers) != 2 or not all(type(one) is int and 1 <= one <= LARGEST_GROUP for one in numbers):
        raise ModelLoadError(f"its quantization_config has the block {shown(value)}")
    return numbers[0], numbers[1]
