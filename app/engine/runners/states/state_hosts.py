"""Which modules of a model keep states in its cache, found by a pass of a few tokens. Inference thread only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.loader import Checkpoint

NUM_TOKENS = 4


@dataclass(frozen=True)
class StateHost:
    """A module that reads and writes the numbered ``states`` of a ``layer``.

    ``goes_on``: several tokens at a time behind others; else single ones only, and several where none were before.
    """

    module: nn.Module
    layer: int
    states: tuple[int, ...]
    goes_on: bool


class WatchedCache(DynamicCache):  # type: ignore[misc, unused-ignore]
    """transformers' own cache, which notes the innermost module at work that asks for states."""

    def __init__(self, config: Any):
        super().__init__(config=config)
        self.at_work: list[nn.Module] = []
        self.found: dict[tuple[nn.Module, int], set[int]] = {}

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Any:
        self._note(layer_idx, state_idx)
        return super().get_conv_state(layer_idx, state_idx)

    def update_conv_state(self, conv_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **options: Any) -> Any:
        self._note(layer_idx, state_idx)
        return super().update_conv_state(conv_states, layer_idx, state_idx, **options)

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **options: Any
    ) -> Any:
        self._note(layer_idx, state_idx)
        return super().update_recurrent_state(recurrent_states, layer_idx, state_idx, **options)

    def leave(self) -> None:
        """The innermost module is through."""
        self.at_work.pop()

    def _note(self, layer: int, state: int) -> None:
        if not self.at_work:
            raise ValueError("a state is kept by no module")
        self.found.setdefault((self.at_work[-1], layer), set()).add(state)


def find_hosts(checkpoint: Checkpoint) -> list[StateHost]:
    """The modules, outermost only. Raises ``ValueError`` where states are not kept by modules of a layer."""
    cache, goes_on = watched(checkpoint)
    inner = {below for module, _ in cache.found for below in module.modules() if below is not module}
    states: dict[tuple[nn.Module, int], set[int]] = {}
    for (module, layer), found in cache.found.items():
        if module not in inner:
            states.setdefault((module, layer), set()).update(found)
    for (module, layer), found in cache.found.items():
        if module in inner:
            outer = next(one for one, _ in states if module in set(one.modules()))
            states.setdefault((outer, layer), set()).update(found)
    if not states:
        raise ValueError("no module says that it keeps states")
    return [StateHost(module, layer, tuple(sorted(found)), goes_on) for (module, layer), found in states.items()]


@torch.inference_mode()
def watched(checkpoint: Checkpoint) -> tuple[WatchedCache, bool]:
    """A cache that two passes went through, and whether the second heeded all states that the first had left.

    A scan that begins with nothing gives the same whatever they were.
    """
    # Unlike ones: a token that pads has no embedding in some models, and leaves no state.
    tokens = torch.arange(NUM_TOKENS, device=checkpoint.device)[None]
    outcomes = []
    for is_blank in (False, True):
        cache = WatchedCache(checkpoint.model.config.get_text_config())
        with noting(checkpoint.model, cache):
            run(checkpoint, cache, tokens)
            recurrent = [state for layer in cache.layers for state in recurrent_states(layer)]
            for state in recurrent if is_blank else []:
                state.zero_()
            outcomes.append(run(checkpoint, cache, tokens))
    return cache, not recurrent or not torch.equal(*outcomes)


def run(checkpoint: Checkpoint, cache: WatchedCache, tokens: torch.Tensor) -> torch.Tensor:
    """Logits ``(1, tokens, vocab)`` of a pass."""
    caching = {cache_argument_of(checkpoint.model): cache, "use_cache": True}
    logits: torch.Tensor = checkpoint.model(input_ids=tokens, **caching).logits
    return logits


def recurrent_states(layer: Any) -> list[torch.Tensor]:
    """Those that a layer of transformers' cache keeps."""
    return [state for state in getattr(layer, "recurrent_states", {}).values() if state is not None]


@contextmanager
def noting(model: nn.Module, cache: WatchedCache) -> Iterator[None]:
    """Within it ``cache`` knows which modules are at work."""
    handles = []
    for module in model.modules():
        if module is not model:
            handles.append(module.register_forward_pre_hook(lambda one, _: cache.at_work.append(one)))
            handles.append(module.register_forward_hook(lambda *_: cache.leave()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
