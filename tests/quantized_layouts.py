"""The layouts in which quantizers publish weights, and how each packs one.

A layout's ``pack`` gives the tensors of a weight, and the weight that they mean, made of the codes before they are
packed. Packing goes bit by bit as the libraries' own code does, whose definitions are named at each; nothing of the
reader is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]
# Of one weight (out, in): the tensors by the ends of their names, and what they mean.
Pack = Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
FP4 = tuple(value / 12 for value in (0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3))


@dataclass(frozen=True)
class Layout:
    """``config``: the ``quantization_config``; ``pack``: of each linear layer but those ``left_out``."""

    config: Mapping[str, Any]
    pack: Pack
    with_head: bool = False
    left_out: tuple[str, ...] = ()
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)


def ranges(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and largest value of each group of inputs, ``(out, groups)``."""
    grouped = weight.view(weight.shape[0], -1, group)
    return grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)


def coded(
    weight: torch.Tensor, bits: int, group: int, *, symmetric: bool, groups: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes ``(out, in)`` from 0, zeros and float16 scales ``(out, groups)``, and the weight that they mean."""
    num_in = weight.shape[1]
    of_input = torch.arange(num_in) // group if groups is None else groups
    top = 2**bits - 1
    ordered = weight[:, torch.argsort(of_input, stable=True)]
    least, largest = ranges(ordered, group)
    if symmetric:
        largest = torch.maximum(-least, largest)
        least = -largest
    scales = ((largest - least) / top).clamp(min=1e-4).half()
    zeros = torch.full_like(scales, 2 ** (bits - 1)) if symmetric else (-least / scales.float()).round().clamp(1, top)
    zeros = zeros.to(torch.int64)
    scale_of, zero_of = scales.float()[:, of_input], zeros[:, of_input]
    codes = ((weight / scale_of).round() + zero_of).clamp(0, top).to(torch.int64)
    return codes, zeros, scales, (codes - zero_of).float() * scale_of


def words(rows: list[list[torch.Tensor]], bits: int) -> torch.Tensor:
    """int32 words of lists of columns, the first in the lowest bits: ``(n, words)`` of columns ``(n,)``."""
    made = []
    for columns in rows:
        word = np.zeros(len(columns[0]), dtype=np.uint32)
        for place, column in enumerate(columns):
            word |= column.numpy().astype(np.uint32) << np.uint32(bits * place)
        made.append(torch.from_numpy(word.view(np.int32)))
    return torch.stack(made, dim=1)


def awq(group: int = 64, **more: Any) -> Layout:
    """AutoAWQ 0.2.9, awq/modules/linear/gemm.py: ``qweight[:, col] |= codes[:, col * 8 + order[i]] << 4 * i``."""
    order = (0, 2, 4, 6, 1, 3, 5, 7)

    def packed(values: torch.Tensor) -> torch.Tensor:
        """``(n, out)`` to ``(n, out / 8)``."""
        starts = range(0, values.shape[1], 8)
        return words([[values[:, start + place] for place in order] for start in starts], 4)

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        size = weight.shape[1] if group == -1 else group
        codes, zeros, scales, meant = coded(weight, 4, size, symmetric=False)
        parts = {".qweight": packed(codes.t()), ".qzeros": packed(zeros.t()), ".scales": scales.t()}
        return parts, meant

    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    return Layout({**config, "modules_to_not_convert": None}, pack, **more)


def gptq(
    bits: int = 4,
    group: int = 64,
    *,
    symmetric: bool = True,
    act_order: bool = False,
    layout: str = "gptq",
    **more: Any,
) -> Layout:
    """AutoGPTQ 0.7.1, qlinear_cuda_old.py: ``qweight[row] |= codes[j] << bits * (j - i)``; v1 has zeros less one."""

    def packed(values: torch.Tensor) -> torch.Tensor:
        """``(n, k)`` to ``(n, k * bits / 32)``."""
        per_word = 32 // bits
        starts = range(0, values.shape[1], per_word)
        return words([[values[:, start + place] for place in range(per_word)] for start in starts], bits)

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        num_in = weight.shape[1]
        size = num_in if group == -1 else group
        groups = torch.arange(num_in) // size
        if act_order:
            groups = groups[torch.randperm(num_in, generator=torch.Generator().manual_seed(num_in))]
        codes, zeros, scales, meant = coded(weight, bits, size, symmetric=symmetric, groups=groups)
        parts = {
            ".qweight": packed(codes).t(),
            ".qzeros": packed((zeros - int(layout == "gptq")).t()),
            ".scales": scales.t(),
            ".g_idx": groups.to(torch.int32),
        }
        return parts, meant

    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "sym": symmetric}
    return Layout({**config, "checkpoint_format": layout}, pack, **more)


def compressed(layout: str, weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A ``quantization_config`` as llm-compressor writes it."""
    scheme = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": ["lm_head"],
        **more,
    }


def packed_integers(
    bits: int = 4, group: int | None = 64, *, symmetric: bool = True, act_order: bool = False, **more: Any
) -> Layout:
    """compressed-tensors 0.12, pack_quantized: codes along a row, moved up by half their range; zeros along columns."""

    def packed(values: torch.Tensor) -> torch.Tensor:
        per_word = 32 // bits
        filled = torch.nn.functional.pad(values, (0, -values.shape[1] % per_word))
        starts = range(0, filled.shape[1], per_word)
        return words([[filled[:, start + place] for place in range(per_word)] for start in starts], bits)

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        num_in = weight.shape[1]
        size = group or num_in
        groups = torch.arange(num_in) // size
        if act_order:
            groups = groups[torch.randperm(num_in, generator=torch.Generator().manual_seed(1))]
        codes, zeros, scales, meant = coded(weight, bits, size, symmetric=symmetric, groups=groups)
        shape = torch.tensor(weight.shape)
        parts = {".weight_packed": packed(codes), ".weight_scale": scales, ".weight_shape": shape}
        if not symmetric:
            parts[".weight_zero_point"] = packed(zeros.t()).t()
        if act_order:
            parts[".weight_g_idx"] = groups.to(torch.int32)
        return parts, meant

    strategy = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    config = {"num_bits": bits, "type": "int", "symmetric": symmetric, "actorder": "group" if act_order else None}
    return Layout(compressed("pack-quantized", config | strategy), pack, **more)


def integers(strategy: str = "channel", *, symmetric: bool = True, **more: Any) -> Layout:
    """compressed-tensors, int-quantized: int8 codes; a scale for each output, for groups, or for all."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        size = 32 if strategy == "group" else weight.shape[1]
        codes, zeros, scales, meant = coded(weight, 8, size, symmetric=symmetric)
        signed, zeros = (codes - 128).to(torch.int8), (zeros - 128).to(torch.int8)
        if strategy == "tensor":
            scales = scales.max().reshape(1)
            signed = (weight / scales.float()).round().clamp(-128, 127).to(torch.int8)
            return {".weight": signed, ".weight_scale": scales}, signed.float() * scales.float()
        parts = {".weight": signed, ".weight_scale": scales}
        return (parts if symmetric else parts | {".weight_zero_point": zeros}), meant

    told = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": strategy}
    told |= {"group_size": 32} if strategy == "group" else {}
    extra = {"model.layers.0.self_attn.q_proj.input_scale": torch.ones(1)}
    return Layout(compressed("int-quantized", told), pack, extra=extra, **more)


def floats8(strategy: str = "channel", **more: Any) -> Layout:
    """compressed-tensors, float-quantized: E4M3, a scale for each output or for all."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        peaks = weight.abs().amax(1, keepdim=True) if strategy == "channel" else weight.abs().max().reshape(1)
        scales = (peaks / 448).to(torch.bfloat16)
        values = (weight / scales.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
        return {".weight": values, ".weight_scale": scales}, values.float() * scales.float()

    told = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy}
    return Layout(compressed("float-quantized", told), pack, **more)


def blocks8(block: tuple[int, int] = (48, 96), **more: Any) -> Layout:
    """DeepSeek-V3, inference/kernel.py: a value times the scale of its block; the last blocks may be smaller."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        num_out, num_in = weight.shape
        meant, values = torch.empty_like(weight), torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
        scales = torch.empty(-(-num_out // block[0]), -(-num_in // block[1]))
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                place = (slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1]))
                scales[i, j] = weight[place].abs().max() / 448
                values[place] = (weight[place] / scales[i, j]).to(torch.float8_e4m3fn)
                meant[place] = values[place].float() * scales[i, j]
        return {".weight": values, ".weight_scale_inv": scales}, meant

    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": list(block)}
    return Layout(config, pack, **more)


def nf4(kind: str = "nf4", *, nested: bool = False, **more: Any) -> Layout:
    """bitsandbytes 0.50, functional.py: pairs of codes, the first in the high half; blocks of 64 of the flat weight.

    Nested: the largest values less their mean are codes of a table of 256, in blocks of 256.
    """
    table = torch.tensor(NF4 if kind == "nf4" else FP4)
    inner = torch.linspace(-1, 1, 256)

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        flat = weight.reshape(-1, 64)
        largest, told = flat.abs().amax(1), {"quant_type": kind, "blocksize": 64, "dtype": "float16"}
        told["shape"] = list(weight.shape)
        parts: Tensors = {".weight.absmax": largest, ".weight.quant_map": table}
        if nested:
            offset = float(largest.mean())
            padded = torch.nn.functional.pad(largest - offset, (0, -len(largest) % 256)).view(-1, 256)
            outer = padded.abs().amax(1)
            indices = ((padded / outer[:, None])[..., None] - inner).abs().argmin(-1)
            parts[".weight.absmax"] = indices.view(-1)[: len(largest)].to(torch.uint8)
            parts |= {".weight.nested_absmax": outer, ".weight.nested_quant_map": inner}
            told |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            largest = (inner[indices] * outer[:, None]).view(-1)[: len(largest)] + offset
        codes = ((flat / largest[:, None])[..., None] - table).abs().argmin(-1)
        meant = (table[codes] * largest[:, None]).view(weight.shape)
        pairs = codes.view(-1, 2)
        parts[".weight"] = ((pairs[:, :1] << 4) | pairs[:, 1:]).to(torch.uint8)
        state = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)
        parts[f".weight.quant_state.bitsandbytes__{kind}"] = state
        return parts, meant

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return Layout({**config, "bnb_4bit_use_double_quant": nested}, pack, **more)


def bnb8(**more: Any) -> Layout:
    """bitsandbytes, LLM.int8(): a code of 127 is the largest value of its output, ``SCB``."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        largest = weight.abs().amax(1)
        codes = (weight * 127 / largest[:, None]).round().to(torch.int8)
        parts = {".weight": codes, ".SCB": largest, ".weight_format": torch.tensor(0, dtype=torch.uint8)}
        return parts, codes.float() * (largest / 127)[:, None]

    return Layout({"quant_method": "bitsandbytes", "load_in_8bit": True}, pack, **more)


LAYOUTS: dict[str, Layout] = {
    "awq": awq(),
    "awq, one group": awq(-1),
    "gptq": gptq(),
    "gptq, asymmetric, in the order of activations": gptq(symmetric=False, act_order=True),
    "gptq v2, 32 inputs, with the output layer": gptq(group=32, symmetric=False, layout="gptq_v2", with_head=True),
    "gptq, 8 bits": gptq(8),
    "packed integers": packed_integers(),
    "packed integers, asymmetric, in order": packed_integers(group=32, symmetric=False, act_order=True),
    "packed bytes of an output": packed_integers(8, None),
    "bytes": integers(),
    "bytes, asymmetric": integers(symmetric=False),
    "bytes, in groups": integers("group"),
    "bytes of one scale": integers("tensor"),
    "floats": floats8(),
    "floats of one scale": floats8("tensor"),
    "blocks of floats": blocks8(),
    "nf4": nf4(),
    "nf4, nested": nf4(nested=True),
    "fp4": nf4("fp4"),
    "int8 of bitsandbytes": bnb8(),
}
