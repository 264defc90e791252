"""Norms of one call: what a family's own norm computes, by torch's functions, on the weight that it comes to.

Inference thread only.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import layer_norm, rms_norm

# The names that families have for what is added to a variance.
EPSILONS = ("variance_epsilon", "eps")
# Of states of some size one, computed in float32.
TOLERANCE = 1e-4


class Norm(nn.Module):
    """RMS norm of ``(.., size)``; ``is_centered``: the mean is taken off before.

    ``weight`` is what states are multiplied by. Where it is wider than the states, all is computed in its dtype.
    """

    def __init__(self, weight: torch.Tensor, variance_epsilon: float, *, is_centered: bool = False):
        super().__init__()
        self.variance_epsilon, self.is_centered = variance_epsilon, is_centered
        if isinstance(weight, nn.Parameter):
            self.weight: torch.Tensor = weight
        else:
            self.weight = nn.Buffer(weight, persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The same shape and dtype."""
        wide, shape = states.to(self.weight.dtype), self.weight.shape
        if self.is_centered:
            return layer_norm(wide, shape, self.weight, None, self.variance_epsilon).to(states.dtype)
        return rms_norm(wide, shape, self.weight, self.variance_epsilon).to(states.dtype)


@torch.inference_mode()
def known_norm(norm: nn.Module | None) -> Norm | None:
    """``norm`` as one call; None where it computes something else, or there is none.

    Its weight may be kept less 1 (Gemma's): then the sum is held, in float32, as that is what the family computes in.
    """
    weight, epsilon = getattr(norm, "weight", None), epsilon_of(norm)
    if norm is None or epsilon is None or not isinstance(weight, nn.Parameter) or weight.ndim != 1:
        return None
    if len(list(norm.parameters())) != 1 or list(norm.buffers()):
        return None
    # Floats as they are in a checkpoint whose norm was made for it; what it gives tells what is made of them.
    states = torch.randn((2, len(weight)), generator=torch.Generator().manual_seed(0)).to(weight.device) + 0.5
    with torch.autocast(weight.device.type, enabled=False):
        found = cast(torch.Tensor, norm(states.to(weight.dtype))).float()
    bound = TOLERANCE if weight.dtype == torch.float32 else 2e-2
    for one in candidates(weight, epsilon):
        departure = (one(states.to(weight.dtype)).float() - found).abs().max()
        if departure <= bound * found.abs().max() and has_scale(found):
            return one
    return None


def candidates(weight: nn.Parameter, epsilon: float) -> tuple[Norm, ...]:
    """The norms that ``weight`` may be meant for."""
    above_one = 1.0 + weight.detach().float()
    return Norm(weight, epsilon), Norm(above_one, epsilon), Norm(weight, epsilon, is_centered=True)


def epsilon_of(norm: Any) -> float | None:
    """What it adds to a variance; None where it does not say."""
    found = [getattr(norm, name) for name in EPSILONS if isinstance(getattr(norm, name, None), float)]
    return found[0] if found else None


def has_scale(states: torch.Tensor) -> bool:
    """Whether they tell one weight from another."""
    return bool(states.abs().max() > 0)
