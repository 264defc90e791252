"""A linear layer with 8-bit weights, whose inputs keep about 16 bits: the arithmetic of FORKLIFT_QUANTIZATION=int8.

Trained models have a few inputs a hundred times larger than the rest, so one byte per input, however
it is scaled, loses what the others say (docs/models.md). Here each row is two rows of bytes: it is
rounded by its own range, and what the rounding left is rounded again. Both go through one product of
8-bit integers, which reads each weight once. Sums of integers are exact, so a row's result does not depend
on what shares its pass. Each output has a scale for its weights; those of a few inputs have finer codes
(``int8_codes``). Inference thread only.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Self

import torch
from torch import nn

from app.models.weights.int8_codes import LARGEST, Codes, codes_of

ENGINE = "fbgemm"


class Int8Linear(nn.Module, ABC):
    """``nn.Linear`` with packed weights; takes float ``(.., in)``, returns float32 ``(.., out)``.

    ``energies`` ``(in,)`` are mean squares of the inputs, where they are known; ``largest`` is the largest code of an
    input.
    """

    # T5 asks its layers for their weights' dtype before it calls them: there is none to convert to.
    weight: None = None
    bias: torch.Tensor | None
    columns: torch.Tensor | None
    factors: torch.Tensor | None
    largest: int

    def __init__(self, linear: nn.Linear, energies: torch.Tensor | None = None):
        super().__init__()
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._keep(codes_of(linear.weight, energies), linear.in_features, bias)

    @classmethod
    def of_codes(cls, coded: Codes, num_in: int, bias: torch.Tensor | None) -> Self:
        """The layer of these codes; ``bias`` is float32."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._keep(coded, num_in, bias)
        return layer

    def _keep(self, coded: Codes, num_in: int, bias: torch.Tensor | None) -> None:
        self.out_features, self.in_features = coded.codes.shape[0], num_in
        self.register_buffer("bias", bias)
        self.register_buffer("columns", coded.columns)
        self.register_buffer("factors", coded.factors)
        self._pack(coded)
        # An operation of a tensor and a number takes three times as long as one of two tensors, for few rows.
        self._range, self._finer, self._share = torch.tensor([self.largest, 2.0 * self.largest, 0.5 / self.largest])

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory of weights and scales that are no buffers of the module."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, self.in_features).float()
        columns, factors = self.columns, self.factors
        if columns is not None and factors is not None:
            rows = rows.index_select(1, columns).mul_(factors)
        steps = rows.abs().amax(dim=1, keepdim=True).div_(self._range)
        parts = rows.new_empty(2, *rows.shape)
        coarse, fine = parts.unbind()
        # A row of zeros gets codes that mean nothing, and is multiplied by its step, 0, in the end.
        torch.div(rows, steps, out=fine)
        torch.round(fine, out=coarse)
        # What is left lies within half a step on either side.
        fine.sub_(coarse).mul_(self._finer)
        coarse, fine = self._product(parts.view(-1, rows.shape[1])).chunk(2)
        # No operation here rounds twice at once: fused ones do, but for the last few numbers of a tensor.
        outputs = coarse.add_(fine.mul_(self._share)).mul_(steps)
        bias = self.bias
        if bias is not None:
            outputs.add_(bias)
        return outputs.view(*inputs.shape[:-1], self.out_features)

    @abstractmethod
    def _pack(self, coded: Codes) -> None:
        """Keep the weight in the form that ``_product`` reads."""

    @abstractmethod
    def _product(self, codes: torch.Tensor) -> torch.Tensor:
        """Float32 ``(rows, out)``: whole numbers ``codes`` ``(rows, in)`` by the weights and their scales."""

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8VectorLinear(Int8Linear):
    """By fbgemm, which needs AVX2 and reads the weights for a few rows fastest.

    Before VNNI its pairs of products stop at 16 bits: inputs then have 7 bits with the sign, and 14 in two parts.
    """

    @property
    def num_bytes(self) -> int:
        num_columns = self.in_features if self.columns is None else len(self.columns)
        return int8_bytes(num_columns, self.out_features, has_bias=False)

    def codes(self) -> Codes:
        """What was packed, exactly, in memory of its own."""
        weight, _ = torch.ops.quantized.linear_unpack(self._packed)
        return Codes(weight.int_repr(), weight.q_per_channel_scales().float(), self.columns, self.factors)

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

    @property
    def num_bytes(self) -> int:
        return 0

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
