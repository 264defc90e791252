"""Products of a compiled step by each form of weight that one can read, as inductor is to see them.

A product is a sum for each row, written out: inductor makes one loop of them, which reads and widens a weight once for
all rows, as it lies in memory (figures in docs/performance.md). Inference thread only, or a process that compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.models.weights.int4_linear import Int4Linear, group_size_of
from app.models.weights.int8_linear import Int8VectorLinear
from app.models.weights.int8_plain import CODES_PER_WORD, PlainInt8Linear
from app.models.weights.packing import PackedLinear
from app.models.weights.wide_linear import WideLinear

# The bits that a byte of a word is moved up by, so that it has the sign; then each moves down by the first of these.
BYTE_SHIFTS = (24, 16, 8, 0)


@dataclass(frozen=True)
class Form:
    """How a weight lies, in words of ``FORMS``, and whether a bias is added; ``group_size``: of 4-bit codes."""

    kind: str
    has_bias: bool
    group_size: int = 0


def form_of(layer: nn.Module) -> Form | None:
    """The form that ``layer`` has for a compiled step, or will have once it is unpacked; None where there is none."""
    kinds = {
        **{nn.Linear: "plain", WideLinear: "plain", PackedLinear: "plain"},
        **{Int8VectorLinear: "int8", PlainInt8Linear: "int8"},
    }
    kind, has_bias = kinds.get(type(layer)), getattr(layer, "bias", None) is not None
    if isinstance(layer, Int4Linear):
        # Inputs in the order of a file would have to be moved first.
        return None if layer.order is not None else Form("int4", has_bias, layer.group_size)
    return None if kind is None else Form(kind, has_bias)


def is_plain(layer: nn.Module) -> bool:
    """Whether a compiled step can read it as it lies."""
    if isinstance(layer, nn.Linear):
        return layer.weight.is_contiguous()
    return isinstance(layer, PlainInt8Linear | Int4Linear)


def weights_of(layer: Any) -> list[torch.Tensor]:
    """What a product takes of a layer that ``is_plain``, in the order that it takes it in."""
    if isinstance(layer, PlainInt8Linear):
        found = [layer.codes.view(torch.int32), layer.scales, layer.word_columns, layer.word_factors]
    elif isinstance(layer, Int4Linear):
        found = [layer.packed, layer.scales_and_zeros]
    else:
        found = [layer.weight]
    return [one.detach() for one in (*found, layer.bias) if one is not None]


def product(states: torch.Tensor, form: Form, num_out: int, weights: list[torch.Tensor]) -> torch.Tensor:
    """``states`` ``(rows, in)`` by weights of that form, summed in float32; ``(rows, num_out)``.

    Of the dtype of the states; of codes float32, as the layer of that form gives.
    """
    sums = FORMS[form.kind].sums(states, weights)[:, :num_out]
    found = sums + weights[-1].float() if form.has_bias else sums
    return found if form.kind == "int8" else found.to(states.dtype)


def plain_sums(states: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """By a weight ``(out, in)`` of floats."""
    wide = weights[0].float()
    return torch.stack([(wide * row).sum(dim=-1) for row in made_first(states.float()).unbind()])


def int8_sums(states: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """By codes of 8 bits that are read four at a time, as numbers ``(out, width / 4)``: see ``PlainInt8Linear``.

    Bytes are no dtype that inductor loads well before AVX-512, 32 bits are.
    """
    codes, scales, columns, factors = weights[:4]
    taken = made_first(states.float()[:, columns] * factors).view(states.shape[0], CODES_PER_WORD, -1)
    places = [((codes << shift) >> BYTE_SHIFTS[0]).float() for shift in BYTE_SHIFTS]
    return torch.stack([weighted(places, row).sum(dim=-1) for row in taken.unbind()]) * scales


def weighted(places: list[torch.Tensor], row: torch.Tensor) -> torch.Tensor:
    """The four products of each word, added up."""
    first, second, third, fourth = (place * part for place, part in zip(places, row.unbind(), strict=True))
    return (first + second) + (third + fourth)


def int4_sums(states: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """By torch's own kernel, which is called as it is: it reads its own layout."""
    packed, scales_and_zeros = weights[:2]
    group_size = group_size_of(states.shape[1], scales_and_zeros.shape[0])
    rows = nn.functional.pad(states, (0, scales_and_zeros.shape[0] * group_size - states.shape[1]))
    found: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, group_size, scales_and_zeros)
    return found.float()


def made_first(states: torch.Tensor) -> torch.Tensor:
    """The same; has inductor compute them before the loop that reads them, and not anew for each output."""
    return states.as_strided(states.shape, states.stride())


@dataclass(frozen=True)
class Reading:
    """How weights of a form are read: ``sums`` of float32 ``(rows, out)``, of ``num_tensors`` without a bias."""

    num_tensors: int
    sums: Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]


FORMS = {"plain": Reading(1, plain_sums), "int8": Reading(4, int8_sums), "int4": Reading(2, int4_sums)}


def num_tensors(form: Form) -> int:
    """How many tensors ``weights_of`` gives for a layer of that form."""
    return FORMS[form.kind].num_tensors + form.has_bias
