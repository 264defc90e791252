"""Whether a fused layer computes what the family's own does, and tells attention the same. Inference thread only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.core.logs.logging import get_logger
from app.models.checkpoint.cache_argument import cache_argument
from app.models.weights.fused.layer_patterns import Pattern
from app.models.weights.fused.rotations import Order, Rotation

# Of the range of what a layer adds, computed in float32.
TOLERANCE = 1e-4
NUM_CHECKED_TOKENS = 5
# Where tokens stand that some families scale their queries for (Ministral 3); of a context of fewer, its end.
FAR_POSITION = 1 << 20
# The name of an attention that notes what a layer tells it.
LISTENING = "forklift_listening"
# What a fused layer tells attention; of what else it is told nothing may depend.
KNOWN = {"sliding_window", "softcap", "s_aux", "scaling", "dropout", "is_causal"}
# What a pass hands to all layers, and those to attention.
HANDED = {"position_ids", "use_cache", "kwargs"}

log = get_logger("models")

Fused = Callable[[nn.Module, Rotation, Pattern], nn.Module]


class Plain(nn.Module):
    """Stands in for a module that stays the family's own."""

    def __init__(self, gives_more: bool):
        super().__init__()
        self._gives_more = gives_more

    def forward(self, states: torch.Tensor) -> Any:
        """The same again, as that module gives it."""
        return (states.tanh(), None) if self._gives_more else states.tanh()


@torch.inference_mode()
def compare(
    fused: Fused, layer: nn.Module, pattern: Pattern, rotary: nn.Module, device: torch.device
) -> Pattern | None:
    """``pattern`` with what was found out by listening; None where a fused ``layer`` gives something else in float32.

    For a few random states, then one more, at the first positions and at far ones.
    """
    try:
        own = own_layer(layer, pattern, device)
        play = Played(own, rotary, device)
        expected, told = play.added(own)
    except Exception as error:
        # Called in another way than the layers that are known here; the family's own stays.
        log.info("layer_not_compared", kind=type(layer).__name__, reason=f"{type(error).__name__}: {error}"[:200])
        return None
    told_to = heard(own, told, pattern)
    turned = [] if told_to is None else [replace(told_to, order=order) for order in Order]
    return next((one for one in turned if play.agrees(fused, one, expected)), None)


def own_layer(layer: Any, pattern: Pattern, device: torch.device) -> Any:
    """A copy in float32 that tells us what it tells attention; what stays the family's own is left out of it."""
    kept, stand_in = layer.mlp, layer.mlp
    if not pattern.has_gate:
        states = torch.zeros((1, 1, layer.self_attn.q_proj.in_features), dtype=layer.self_attn.q_proj.weight.dtype)
        stand_in = Plain(isinstance(kept(states.to(device)), tuple))
    layer.mlp = stand_in
    try:
        own = deepcopy(layer).float()
    finally:
        layer.mlp = kept
    ALL_ATTENTION_FUNCTIONS.register(LISTENING, listening_attention)
    own.self_attn.config._attn_implementation = LISTENING
    return own


def heard(own: Any, told: dict[str, Any], pattern: Pattern) -> Pattern | None:
    """``pattern`` with what attention was told; None where that is more than a fused layer would say."""
    if {name for name, value in told.items() if value is not None} - KNOWN - HANDED:
        return None
    attention, sinks = own.self_attn, told.get("s_aux")
    is_causal = attention.is_causal and told.get("is_causal") is not False
    if told.get("scaling") != attention.scaling or told.get("dropout") or not is_causal:
        return None
    if (sinks is not None) != pattern.has_sinks:
        return None
    if sinks is not None and not torch.equal(sinks, attention.sinks):
        return None
    return replace(pattern, window=told.get("sliding_window"), softcap=told.get("softcap"))


class Played:
    """Random states of a few tokens, and what layers make of them as the model calls its ``own``."""

    def __init__(self, own: Any, rotary: nn.Module, device: torch.device):
        # Some change with the positions that they are asked for.
        self._own, self._rotary, self._device = own, deepcopy(rotary), device
        generator = torch.Generator().manual_seed(0)
        width = own.self_attn.q_proj.in_features
        self._states = torch.randn((1, NUM_CHECKED_TOKENS, width), generator=generator).to(device)
        most = getattr(own.self_attn.config, "max_position_embeddings", None) or FAR_POSITION
        self._starts = (0, max(min(int(most), FAR_POSITION) - NUM_CHECKED_TOKENS, 0))

    def agrees(self, fused: Fused, pattern: Pattern, expected: torch.Tensor) -> bool:
        """Whether a fused layer of that pattern adds what is expected."""
        try:
            found, _ = self.added(fused(self._own, Rotation(pattern.order), pattern))
        except (RuntimeError, ValueError):
            return False
        bound = TOLERANCE * (expected.max() - expected.min())
        return found.shape == expected.shape and bool((found - expected).abs().max() <= bound)

    def added(self, layer: nn.Module) -> tuple[torch.Tensor, dict[str, Any]]:
        """What ``layer`` adds to all but the last in one pass, then to the last one from the cache; twice.

        And what it told attention at last.
        """
        found = [self._added_from(layer, start) for start in self._starts]
        return torch.cat(found), dict(getattr(getattr(layer, "self_attn", layer), "told_last", {}))

    def _added_from(self, layer: nn.Module, start: int) -> torch.Tensor:
        cache, num_first, added = DynamicCache(), NUM_CHECKED_TOKENS - 1, []
        for first, last in ((0, num_first), (num_first, NUM_CHECKED_TOKENS)):
            positions = torch.arange(start + first, start + last, device=self._device)[None]
            some = self._states[:, first:last]
            options = {str(cache_argument(self._own.forward)): cache, "use_cache": True, "position_ids": positions}
            named = inspect.signature(self._own.forward).parameters
            is_open = any(one.kind is one.VAR_KEYWORD for one in named.values())
            options = {name: value for name, value in options.items() if is_open or name in named}
            added.append(layer(some, position_embeddings=self._embeddings(some, positions), **options) - some)
        return torch.cat(added, dim=1)

    def _embeddings(self, states: torch.Tensor, positions: torch.Tensor) -> Any:
        """Of this layer's kind, where a model has several (Gemma 3)."""
        if "layer_type" not in inspect.signature(self._rotary.forward).parameters:
            return self._rotary(states, positions)
        attention = self._own.self_attn
        return self._rotary(states, positions, attention.config.layer_types[attention.layer_idx])


def listening_attention(module: Any, *states: torch.Tensor | None, **options: Any) -> tuple[torch.Tensor, Any]:
    """torch's attention, which notes in ``module`` what it is told, and knows caps and sinks by nothing but that."""
    module.told_last = dict(options)
    # torch's own refuses it.
    options.pop("softcap", None)
    attended: tuple[torch.Tensor, Any] = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *states, **options)
    return attended
