"""Which inputs of a linear layer have finer codes for their weights than the others. Inference thread only."""

from __future__ import annotations

from collections.abc import Iterator

import torch

# Outputs that are looked at together: what is float32 beside the weights stays small.
PART_OUTPUTS = 4096
# So many inputs of either kind are taken, where the mean square of the error then falls below this share.
# On SmolLM2 the large inputs leave 0.3 of it in queries, keys and values, 0.65 in gate and up, and 0.4 in the
# output layer, whose large weights leave 0.45; its other layers have nothing to gain, as random weights have not.
NUM_APART, WORTH_IT = 8, 0.75


def columns_apart(weight: torch.Tensor, energies: torch.Tensor | None) -> torch.Tensor | None:
    """Indices of inputs whose weights are better rounded more finely, or None."""
    if weight.shape[1] <= 4 * NUM_APART:
        return None
    found = columns_with_largest_weights(weight)
    if energies is not None:
        largest = energies.topk(NUM_APART)
        if energies.sum() - largest.values.sum() < WORTH_IT * energies.sum():
            found |= set(largest.indices.tolist())
    return torch.tensor(sorted(found)) if found else None


def columns_with_largest_weights(weight: torch.Tensor) -> set[int]:
    """A few indices, where the scales of all others are much smaller without these; else none."""
    peaks = torch.stack([part.abs().amax(dim=0) for _, part in parts_of(weight)]).amax(dim=0)
    largest = peaks.topk(NUM_APART).indices
    with_all = without = 0.0
    for _, part in parts_of(weight):
        part = part.abs()
        with_all += float(part.amax(dim=1).square().sum())
        without += float(part.index_fill_(1, largest, 0.0).amax(dim=1).square().sum())
    return set(largest.tolist()) if without < WORTH_IT * with_all else set()


def parts_of(weight: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """The first output and the float32 weights of each part."""
    for start in range(0, weight.shape[0], PART_OUTPUTS):
        yield start, weight[start : start + PART_OUTPUTS].detach().float()
