"""A linear layer with 8-bit weights, whose inputs keep about 16 bits: the arithmetic of FORKLIFT_QUANTIZATION=int8.

Trained models have a few inputs a hundred times larger than the rest, so one byte per input, however
it is scaled, loses what the others say (docs/models.md). Here each row is two rows of bytes: it is
rounded by its own range, and what the rounding left is rounded again. Both go through one product of
8-bit integers, which reads each weight once. Sums of integers are exact, so a row's result does not depend
on what shares its pass. Each output has a scale for its weights. The weights of a few inputs stay as they
are: of those so large that an error in them is most of the error, and of those whose weights are so large
that the scales would follow them. Inference thread only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from app.models.outliers import PART_OUTPUTS, columns_apart, parts_of

# Codes of weights, and of inputs where sums are exact, go from minus this to this.
LARGEST = 127
# Below every real weight; an output whose weights are all zero has a scale too.
LEAST_PEAK = 1e-30
ENGINE = "fbgemm"


@dataclass(frozen=True)
class Codes:
    """A weight as int8 ``(out, in)`` and float32 scales ``(out,)``; ``apart`` are columns that it has as zeros."""

    codes: torch.Tensor
    scales: torch.Tensor
    apart: torch.Tensor | None


class Int8Linear(nn.Module):
    """``nn.Linear`` with packed weights; takes float ``(.., in)``, returns float32 ``(.., out)``.

    ``energies`` ``(in,)`` are mean squares of the inputs, where they are known; ``largest`` is the largest code of an
    input.
    """

    bias: torch.Tensor | None
    apart: torch.Tensor | None
    weight_apart: torch.Tensor | None
    largest: int

    def __init__(self, linear: nn.Linear, energies: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        coded = codes_of(linear.weight, energies)
        kept = None if coded.apart is None else linear.weight.detach()[:, coded.apart].float().t().contiguous()
        self.register_buffer("apart", coded.apart)
        self.register_buffer("weight_apart", kept)
        self._pack(coded)

    @property
    def num_bytes(self) -> int:
        """Memory of weights and scales that are no buffers of the module."""
        return 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, self.in_features).float()
        steps = rows.abs().amax(dim=1, keepdim=True) / self.largest
        parts = rows.new_empty(2, *rows.shape)
        # Unpacking the tensor would take three times as long as this.
        coarse, fine = parts[0], parts[1]
        # A row of zeros gets codes that mean nothing, and is multiplied by its step, 0, in the end.
        torch.div(rows, steps, out=fine)
        torch.round(fine, out=coarse)
        # What is left lies within half a step on either side.
        fine.sub_(coarse).mul_(2 * self.largest)
        products = self._product(parts.view(-1, self.in_features))
        num_rows = rows.shape[0]
        outputs = torch.add(products[:num_rows], products[num_rows:], alpha=0.5 / self.largest)
        outputs = outputs.mul_(steps) if self.bias is None else torch.addcmul(self.bias, outputs, steps)
        if self.apart is not None:
            assert self.weight_apart is not None
            outputs.addmm_(rows.index_select(1, self.apart), self.weight_apart)
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def _pack(self, coded: Codes) -> None:
        """Keep the weight in the form that ``_product`` reads."""
        raise NotImplementedError

    def _product(self, codes: torch.Tensor) -> torch.Tensor:
        """Float32 ``(rows, out)``: whole numbers ``codes`` ``(rows, in)`` by the weights and their scales."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8VectorLinear(Int8Linear):
    """By fbgemm, which needs AVX2 and reads the weights for a few rows fastest.

    Before VNNI its pairs of products stop at 16 bits: inputs then have 7 bits with the sign, and 14 in two parts.
    """

    @property
    def num_bytes(self) -> int:
        return int8_bytes(self.in_features, self.out_features, has_bias=False)

    def _pack(self, coded: Codes) -> None:
        self.largest = LARGEST if has_exact_sums() else LARGEST // 2
        self._packed = packed_for_vectors(coded.codes, coded.scales)

    def _product(self, codes: torch.Tensor) -> torch.Tensor:
        products: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            codes, 1.0, self.largest + 1, self._packed
        )
        return products


class Int8TileLinear(Int8Linear):
    """By oneDNN, which multiplies bytes in tiles (AMX): fastest where several rows share a pass."""

    packed: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    largest = LARGEST

    def _pack(self, coded: Codes) -> None:
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(coded.codes, None), persistent=False)
        self.register_buffer("scales", coded.scales)
        self.register_buffer("zeros", torch.zeros(self.out_features, dtype=torch.int32))

    def _product(self, codes: torch.Tensor) -> torch.Tensor:
        zero = LARGEST + 1
        # Conversion to integers cuts off, so half a step more rounds.
        unsigned = codes.add_(zero + 0.5).to(torch.uint8)
        products: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, zero, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return products


def int8_bytes(num_in: int, num_out: int, has_bias: bool) -> int:
    """Memory of a layer: its codes, a scale and a sum or zero for each output, a bias."""
    return num_out * (num_in + 8 + 4 * has_bias)


def codes_of(weight: torch.Tensor, energies: torch.Tensor | None) -> Codes:
    """int8 codes of a float weight ``(out, in)``, a part of the outputs at a time."""
    apart = columns_apart(weight, energies)
    codes, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(weight.shape[0])
    for start, part in parts_of(weight):
        if apart is not None:
            part = part.index_fill(1, apart, 0.0)
        found = part.abs().amax(dim=1).clamp(min=LEAST_PEAK) / LARGEST
        scales[start : start + PART_OUTPUTS] = found
        codes[start : start + PART_OUTPUTS] = (part / found[:, None]).round_()
    return Codes(codes, scales, apart)


def packed_for_vectors(codes: torch.Tensor, scales: torch.Tensor) -> torch.ScriptObject:
    """fbgemm's own form of a weight."""
    usual, torch.backends.quantized.engine = torch.backends.quantized.engine, ENGINE
    try:
        with deprecation_silenced():
            zeros = torch.zeros(scales.shape, dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(codes, scales.double(), zeros, 0)
            packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = usual
    return packed


def has_vectors() -> bool:
    """Whether this build of torch has fbgemm: on x86-64 with AVX2."""
    return ENGINE in torch.backends.quantized.supported_engines


def has_tiles() -> bool:
    """Whether this CPU multiplies 8-bit integers in tiles, and this build of torch lets us."""
    return torch.cpu._is_amx_tile_supported() and hasattr(torch.ops.onednn, "qlinear_pointwise")


@cache
def has_exact_sums() -> bool:
    """Whether this CPU adds products of 8 bits without a limit (VNNI does; before it, pairs stopped at 16 bits)."""
    packed = packed_for_vectors(torch.full((64, 64), LARGEST, dtype=torch.int8), torch.ones(64))
    sums = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        torch.full((64, 64), float(LARGEST)), 1.0, LARGEST + 1, packed
    )
    return bool((sums - 64 * LARGEST**2).abs().max() < 0.5)


@contextmanager
def deprecation_silenced() -> Iterator[None]:
    """torch announces a successor (torchao); it says so once per tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(deprecated|torch.ao.quantization).*")
        yield
