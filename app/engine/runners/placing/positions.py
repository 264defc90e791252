"""How a model is told the positions of a pass: by its argument, or where it has none at the modules that look them up.

Decoders of BART's kind count on from the cache's length, which is one for all rows of a pass; rows of ours have a
position each. Inference thread only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# What such a module calls the length of the cache; the first is older than transformers 5.24.
LENGTHS = {"past_key_values_length", "cache_length"}


class Positions:
    """Tells ``model`` the positions of each pass."""

    def __init__(self, model: nn.Module):
        self._hosts = position_hosts(model)

    @contextmanager
    def told(self, positions: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
        """A pass of tokens at ``positions`` ``(rows, num_new)``; arguments that its call needs for that."""
        if not self._hosts:
            yield {"position_ids": positions}
            return
        usual = [host.__dict__.get("forward") for host in self._hosts]
        for host in self._hosts:
            host.forward = looking_up(host.forward, positions)
        try:
            yield {}
        finally:
            for host, forward in zip(self._hosts, usual, strict=True):
                del host.forward
                if forward is not None:
                    host.forward = forward


def position_hosts(model: nn.Module) -> list[nn.Module]:
    """The modules of ``model`` at which positions are looked up; none where its call takes them."""
    if "position_ids" in parameters_of(model):
        return []
    return [one for one in model.modules() if isinstance(one, nn.Embedding) and looks_up(one)]


def looks_up(module: nn.Module) -> bool:
    """Whether it takes positions, and counts them from the cache's length where it gets none."""
    names = parameters_of(module)
    return "position_ids" in names and not names.isdisjoint(LENGTHS)


def parameters_of(module: nn.Module) -> set[str]:
    """The names that the forward of its class has."""
    return set(inspect.signature(type(module).forward).parameters)


def looking_up(inner: Callable[..., torch.Tensor], positions: torch.Tensor) -> Callable[..., torch.Tensor]:
    """``inner``, the forward of a host, for a pass at ``positions``: it is asked for one row of positions only."""

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        found = inner(*args, **{**kwargs, "position_ids": positions.flatten()})
        return found.reshape(*positions.shape, -1)

    return forward
