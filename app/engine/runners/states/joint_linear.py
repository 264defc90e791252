"""Linear layers that read the same, as one product. Inference thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import linear


class JointLinear:
    """What the layers ``names`` of ``parent`` make of the same inputs, one behind the other.

    Weights that were laid out for the kernels, and belong to this process, come to lie side by side; the layers go on
    with views of them. Others, and layers that something is hooked to (adapters), are called one by one.
    """

    def __init__(self, parent: nn.Module, names: Sequence[str]):
        self._parent, self._names = parent, names
        self._weight = lain_together(self._layers()) if len(names) > 1 else None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """``(.., in)`` to ``(.., all outputs)``."""
        layers = self._layers()
        if self._weight is not None and not any(one._forward_hooks or one._forward_pre_hooks for one in layers):
            return linear(inputs, self._weight)
        made = [cast(torch.Tensor, one(inputs)) for one in layers]
        return made[0] if len(made) == 1 else torch.cat(made, dim=-1)

    def _layers(self) -> list[Any]:
        return [getattr(self._parent, name) for name in self._names]


def lain_together(layers: Sequence[Any]) -> torch.Tensor | None:
    """The weight ``(out, in)`` of all ``layers``, of which each gets its part; None where they lie as in their file."""
    if not all(type(one) is nn.Linear and one.bias is None and not one.weight.is_contiguous() for one in layers):
        return None
    if len({one.weight.dtype for one in layers}) > 1:
        return None
    weight = torch.cat([one.weight.detach().t() for one in layers], dim=1).t()
    for one, part in zip(layers, torch.split(weight, [one.out_features for one in layers]), strict=True):
        one.weight = nn.Parameter(part, requires_grad=False)
    return weight
