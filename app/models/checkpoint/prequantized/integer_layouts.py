"""Layouts of whole-number codes: AWQ's, GPTQ's, compressed-tensors', and LLM.int8()'s.

AWQ (AutoAWQ, ``gemm``): qweight ``(in, out / 8)``, qzeros ``(groups, out / 8)``, scales ``(groups, out)``; the eight
codes of a word are outputs 0, 2, 4, 6, 1, 3, 5, 7. GPTQ: qweight ``(in * bits / 32, out)``, qzeros ``(groups, out *
bits / 32)``, scales ``(groups, out)``, g_idx ``(in,)``; zeros are stored less one, but in ``gptq_v2``.
compressed-tensors, packed: weight_packed ``(out, in * bits / 32)``, weight_scale ``(out, groups)``, weight_zero_point
``(out * bits / 32, groups)``, codes and zeros moved up to be positive; not packed: int8 ``weight`` with a scale.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from app.models.checkpoint.prequantized.coded_weight import Coded, IntegerWeight, unpacked
from app.models.checkpoint.prequantized.stored_tensors import Stored

# Where output i of a word of AWQ's stands.
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
PER_WORD = 8


class Tensors(NamedTuple):
    """What the layouts have in common: ``zeros`` None: all the same one; ``groups`` None: side by side."""

    codes: Stored
    scales: Stored
    zeros: Stored | None = None
    groups: Stored | None = None


class AwqWeight(IntegerWeight):
    """A layer of AutoAWQ's."""

    def __init__(self, name: str, tensors: Tensors):
        num_in, num_words = tensors.codes.shape
        super().__init__(name, (num_words * PER_WORD, num_in), 4, tensors.scales.shape[0], None)
        self._tensors = tensors

    def read(self, rows: slice) -> Coded:
        words = slice(rows.start // PER_WORD, -(-rows.stop // PER_WORD))
        codes, zeros = (self._ordered(part, words) for part in (self._tensors.codes, self._tensors.zeros))
        scales = self._tensors.scales.read(slice(None), rows).float().t()
        num_rows = rows.stop - rows.start
        return Coded(codes[:num_rows].contiguous(), scales.contiguous(), zeros[:num_rows].float())

    def _ordered(self, stored: Stored | None, words: slice) -> torch.Tensor:
        assert stored is not None
        codes = unpacked(stored.read(slice(None), words), 4)
        return codes.view(len(codes), -1, PER_WORD)[..., AWQ_PLACES].reshape(len(codes), -1).t()


class GptqWeight(IntegerWeight):
    """A layer of AutoGPTQ's or GPTQModel's; ``zero_shift`` is what zeros were made less by."""

    def __init__(self, name: str, tensors: Tensors, num_bits: int, zero_shift: int):
        num_words, num_out = tensors.codes.shape
        shape = (num_out, num_words * 32 // num_bits)
        super().__init__(name, shape, num_bits, tensors.scales.shape[0], tensors.groups)
        self._tensors, self._zero_shift = tensors, zero_shift

    def read(self, rows: slice) -> Coded:
        tensors, per_word = self._tensors, 32 // self.num_bits
        codes = unpacked(tensors.codes.read(slice(None), rows).t(), self.num_bits)
        scales = tensors.scales.read(slice(None), rows).float().t().contiguous()
        assert tensors.zeros is not None
        words = slice(rows.start // per_word, -(-rows.stop // per_word))
        zeros = unpacked(tensors.zeros.read(slice(None), words), self.num_bits).t()[: rows.stop - rows.start]
        # As AutoGPTQ's own code does: a zero of 0 was stored as the largest code.
        zeros = (zeros.to(torch.int32) + self._zero_shift) & (2**self.num_bits - 1)
        return Coded(codes, scales, zeros.float().contiguous())


class PackedWeight(IntegerWeight):
    """A layer of compressed-tensors' ``pack-quantized``."""

    def __init__(self, name: str, tensors: Tensors, shape: tuple[int, int], num_bits: int):
        super().__init__(name, shape, num_bits, tensors.scales.shape[1], tensors.groups)
        self._tensors = tensors

    @property
    def has_signed_codes(self) -> bool:
        return self._tensors.zeros is None

    def read(self, rows: slice) -> Coded:
        tensors, middle = self._tensors, 2 ** (self.num_bits - 1)
        codes = unpacked(tensors.codes.read(rows), self.num_bits)[:, : self.shape[1]].contiguous()
        scales = tensors.scales.read(rows).float()
        if tensors.zeros is None:
            zeros = torch.full_like(scales, middle)
        else:
            per_word = 32 // self.num_bits
            words = slice(rows.start // per_word, -(-rows.stop // per_word))
            columns = unpacked(tensors.zeros.read(words).t(), self.num_bits)
            zeros = columns.t()[: rows.stop - rows.start].float().contiguous()
        if self.has_signed_codes and self.num_bits == 8:
            return Coded((codes.to(torch.int16) - middle).to(torch.int8), scales, torch.zeros_like(scales))
        return Coded(codes, scales, zeros)


class ByteWeight(IntegerWeight):
    """int8 codes as they are: compressed-tensors' ``int-quantized``, and LLM.int8(), whose scale is of 127."""

    def __init__(self, name: str, tensors: Tensors, *, divisor: float = 1.0):
        num_out, num_in = tensors.codes.shape
        is_grouped = len(tensors.scales.shape) == 2 and tensors.scales.shape[0] == num_out
        num_groups = tensors.scales.shape[1] if is_grouped else 1
        super().__init__(name, (num_out, num_in), 8, num_groups, tensors.groups)
        self._tensors, self._divisor = tensors, divisor

    @property
    def has_signed_codes(self) -> bool:
        return self._tensors.zeros is None

    def read(self, rows: slice) -> Coded:
        codes = self._tensors.codes.read(rows)
        scales = self._of_outputs(self._tensors.scales, rows) / self._divisor
        if self._tensors.zeros is None:
            return Coded(codes, scales, torch.zeros_like(scales))
        return Coded(codes, scales, self._of_outputs(self._tensors.zeros, rows))

    def _of_outputs(self, stored: Stored, rows: slice) -> torch.Tensor:
        """Float32 ``(rows, groups)``, of one number for all as well."""
        values = stored.read().float().reshape(-1, self.num_groups)
        return (values.expand(self.shape[0], -1) if len(values) == 1 else values)[rows].contiguous()
