"""8-bit codes of a weight, with finer ones for the inputs that matter most: what ``int8_linear`` packs.

The weights of a few inputs have 15 bits: of those so large that an error in them is most of the error, and of
those whose weights are so large that the scales would follow them (``outliers``). What their codes leave is
rounded again, into columns of their own behind the others, which read the same inputs, scaled down. So
all stays one product of integers. Inference thread only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from app.models.weights.layer_inputs.outliers import PART_OUTPUTS, columns_apart, parts_of

# Codes go from minus this to this.
LARGEST = 127
# Below every real weight; an output whose weights are all zero has a scale too.
LEAST_PEAK = 1e-30
# An input whose weights are large is scaled up by so much at most: the range of a row must not follow it.
MOST_GROWTH = 32.0


@dataclass(frozen=True)
class Codes:
    """A weight as int8 ``(out, columns)`` and float32 scales ``(out,)``.

    Column i reads input ``columns[i]`` times ``factors[i]``; both are None where the columns are the inputs.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    columns: torch.Tensor | None = None
    factors: torch.Tensor | None = None


def codes_of(weight: torch.Tensor, energies: torch.Tensor | None) -> Codes:
    """Codes of a float weight ``(out, in)``, a part of the outputs at a time; ``energies`` ``(in,)`` where known."""
    apart = columns_apart(weight, energies)
    scales = torch.empty(weight.shape[0])
    for start, part in parts_of(weight):
        others = part if apart is None else part.index_fill(1, apart, 0.0)
        scales[start : start + PART_OUTPUTS] = others.abs().amax(dim=1).clamp(min=LEAST_PEAK) / LARGEST
    if apart is None:
        return Codes(rounded(weight, scales), scales)
    kept = weight[:, apart].detach().float()
    growths = growths_of(kept, scales, None if energies is None else energies.clamp(min=LEAST_PEAK), apart)
    scales = torch.maximum(scales, (kept.abs() / growths).amax(dim=1) / LARGEST)
    num_in = weight.shape[1]
    factors = torch.cat([torch.ones(num_in), growths / (2 * LARGEST)]).index_copy_(0, apart, growths)
    columns = torch.cat([torch.arange(num_in), apart])
    codes = rounded(weight, scales)
    exact = kept / growths / scales[:, None]
    codes[:, apart] = exact.round().to(torch.int8)
    finer = (exact - exact.round()).mul_(2 * LARGEST).round_().to(torch.int8)
    return Codes(torch.cat([codes, finer], dim=1), scales, columns, factors)


def growths_of(
    kept: torch.Tensor, scales: torch.Tensor, energies: torch.Tensor | None, apart: torch.Tensor
) -> torch.Tensor:
    """How much larger the weights ``kept`` ``(out, apart)`` are than the ``scales`` hold, at least 1.

    Only as much as leaves these inputs, times that, below the largest ones.
    """
    needed = (kept.abs() / scales[:, None]).amax(dim=0) / LARGEST
    limits = torch.full_like(needed, MOST_GROWTH)
    if energies is not None:
        limits = torch.minimum(limits, (energies.max() / energies[apart]).sqrt())
    return torch.minimum(needed, limits).clamp(min=1.0)


def rounded(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """int8 codes ``(out, in)``; what is beyond them is cut off."""
    codes = torch.empty(weight.shape, dtype=torch.int8)
    for start, part in parts_of(weight):
        exact = part / scales[start : start + PART_OUTPUTS, None]
        codes[start : start + PART_OUTPUTS] = exact.round_().clamp_(-LARGEST, LARGEST)
    return codes
