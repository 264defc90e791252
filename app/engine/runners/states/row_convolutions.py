"""Causal convolutions of layers that keep states, as a few products with shifted tokens.

transformers has them in torch where no kernels are installed, by a convolution that takes each channel for a group of
its own; on a CPU a step of 16 rows spends more time in those than in its recurrences. The package `causal_conv1d` has
the same two functions, and families call both by these names. Inference thread only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN


def causal_conv1d_update(
    hidden_states: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
) -> torch.Tensor:
    """Of ``(rows, channels, num_new)`` behind ``conv_state``, which then holds the last entries of both."""
    entries = torch.cat([conv_state, hidden_states], dim=-1).to(weight.dtype)
    conv_state.copy_(entries[:, :, -conv_state.shape[-1] :])
    num_read = hidden_states.shape[-1] + weight.shape[-1] - 1
    return convolved(entries[:, :, -num_read:], weight, bias, activation).to(hidden_states.dtype)


def causal_conv1d_fn(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    **_options: Any,
) -> torch.Tensor:
    """Of ``(batch, channels, tokens)`` behind nothing."""
    entries = nn.functional.pad(hidden_states.to(weight.dtype), (weight.shape[-1] - 1, 0))
    return convolved(entries, weight, bias, activation).to(hidden_states.dtype)


def convolved(
    entries: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None
) -> torch.Tensor:
    """One value for each stretch of entries as long as ``weight`` ``(channels, length)``."""
    length = weight.shape[-1]
    num_values = entries.shape[-1] - length + 1
    # A sum in 16 bits would be rounded at each of its parts.
    entries, factors = entries.float(), weight.float()[:, :, None]
    values = entries[:, :, :num_values] * factors[:, 0]
    for at in range(1, length):
        values = torch.addcmul(values, entries[:, :, at : at + num_values], factors[:, at])
    if bias is not None:
        values = values + bias.float()[:, None]
    values = values.to(weight.dtype)
    return values if activation is None else ACT2FN[activation](values)


OURS = (causal_conv1d_update, causal_conv1d_fn)


class Convolutions:
    """Ours in the place of transformers' functions, for the code of ``modules``."""

    def __init__(self, modules: Sequence[nn.Module]):
        families = {sys.modules[type(module).__module__] for module in modules}
        self._places = [(family, ours) for family in families for ours in OURS if hasattr(family, ours.__name__)]

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """While a pass runs."""
        usual = [getattr(family, ours.__name__) for family, ours in self._places]
        for family, ours in self._places:
            setattr(family, ours.__name__, ours)
        try:
            yield
        finally:
            for (family, ours), function in zip(self._places, usual, strict=True):
                setattr(family, ours.__name__, function)
