"""Which modules that keep states take a pass at once, and decoder layers around them with fewer, larger operations.

Both are found by the names of their parts, and each is compared with the family's own code before it is used.
Inference thread only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from app.core.logs.logging import get_logger
from app.engine.generation.plan import Chunk
from app.engine.kv.row_states import RowStates
from app.engine.runners.states.delta_net import DeltaNet, DeltaPass, is_delta_net
from app.engine.runners.states.joint_linear import JointLinear
from app.engine.runners.states.state_hosts import StateHost
from app.models.checkpoint.cache_argument import cache_argument
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.fused.fused_norms import known_norm

AROUND = {"mlp", "input_layernorm", "post_attention_layernorm"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
# Of the range of what a module gives: of float32, and of 16 bits, where sums are rounded elsewhere.
TOLERANCES = {torch.float32: 1e-4}
ROUGH_TOLERANCE = 3e-2
# Tokens of passes that follow one another: several where nothing was before, one, and several that go on.
COMPARED = (5, 1, 3)

Forward = Callable[[torch.Tensor, DeltaPass, RowStates], torch.Tensor]
log = get_logger("engine")


@dataclass(frozen=True)
class WholePass:
    """``module``, which keeps its states in a ``layer`` of the cache, takes a pass at once by ``forward``."""

    module: nn.Module
    layer: int
    forward: Forward

    def of(self, laid: DeltaPass, states: RowStates) -> Callable[..., torch.Tensor]:
        """The module's forward for one pass: ``(1, tokens, hidden)`` to the same."""

        def forward(hidden_states: torch.Tensor, *_args: Any, **_options: Any) -> torch.Tensor:
            return self.forward(hidden_states[0], laid, states)[None]

        return forward


class LayerAround:
    """The decoder layer around a delta net: norms of one call each, gate and up of one product."""

    def __init__(self, layer: Any, mixer: DeltaNet):
        self._mixer, self._mlp = mixer, layer.mlp
        self._norm, self._norm_behind = quick(layer.input_layernorm), quick(layer.post_attention_layernorm)
        self._gate_up = JointLinear(layer.mlp, ("gate_proj", "up_proj"))

    def __call__(self, hidden: torch.Tensor, laid: DeltaPass, states: RowStates) -> torch.Tensor:
        """``(tokens, hidden)`` to the same."""
        hidden = hidden + self._mixer(self._norm(hidden), laid, states)
        gate, up = self._gate_up(self._norm_behind(hidden)).chunk(2, dim=-1)
        added: torch.Tensor = self._mlp.down_proj(self._mlp.act_fn(gate) * up)
        return hidden + added


def quick(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """``norm`` as one call, where it is a known one in float32 that nothing is hooked to."""
    weight = getattr(norm, "weight", None)
    is_plain = weight is not None and weight.dtype == torch.float32 and not norm._forward_hooks
    found: Callable[[torch.Tensor], torch.Tensor] = (known_norm(norm) if is_plain else None) or norm
    return found


@torch.inference_mode()
def whole_passes(checkpoint: Checkpoint, hosts: Sequence[StateHost]) -> list[WholePass]:
    """Those of ``hosts``, or the layers around them, that can take a pass at once; on a CPU, where it was measured."""
    if checkpoint.device.type != "cpu":
        return []
    found = []
    for host in hosts:
        if host.states != (0,) or not host.goes_on or not is_delta_net(host.module):
            continue
        mixer = DeltaNet(host.module)
        if not is_same(host.module, mixer, checkpoint):
            continue
        whole = WholePass(host.module, host.layer, mixer)
        around = layer_around(checkpoint.model, host.module)
        if around is not None and is_same(around, layer := LayerAround(around, mixer), checkpoint):
            whole = WholePass(around, host.layer, layer)
        found.append(whole)
    log.info("states_in_whole_passes", num_modules=len(found), num_hosts=len(hosts))
    return found


def layer_around(model: nn.Module, module: nn.Module) -> nn.Module | None:
    """The decoder layer that ``module`` is the mixer of, where its other parts are norms and a gated MLP."""
    for layer in model.modules():
        children = dict(layer.named_children())
        if module in children.values() and {name for name, one in children.items() if one is not module} == AROUND:
            return layer if {name for name, _ in children["mlp"].named_children()} == MLP else None
    return None


def is_same(module: nn.Module, forward: Forward, checkpoint: Checkpoint) -> bool:
    """Whether ``forward`` gives what ``module`` does, for a few random tokens in passes that follow one another."""
    config, parameters = checkpoint.model.config.get_text_config(), inspect.signature(module.forward).parameters
    cache, states, start = DynamicCache(config=config), RowStates(1, 1), 0
    options: dict[str, Any] = {str(cache_argument(module.forward)): cache, "attention_mask": None}
    if "position_embeddings" in parameters:
        options["position_embeddings"] = None
    generator = torch.Generator().manual_seed(0)
    for num_tokens in COMPARED:
        hidden = torch.randn((1, num_tokens, config.hidden_size), generator=generator).to(checkpoint.dtype)
        expected = module(hidden_states=hidden, **options)
        chunks = [Chunk(0, [0] * num_tokens, start)] if num_tokens > 1 else []
        found = forward(hidden[0], DeltaPass(num_tokens == 1, chunks, hidden.device), states)[None]
        states.commit()
        start += num_tokens
        if not is_near(found, expected, hidden):
            return False
    return True


def is_near(found: torch.Tensor, expected: Any, hidden: torch.Tensor) -> bool:
    """Whether two outcomes are as good as one, of layers that add to ``hidden`` or make something of it."""
    if not isinstance(expected, torch.Tensor) or expected.shape != found.shape:
        return False
    tolerance = TOLERANCES.get(hidden.dtype, ROUGH_TOLERANCE)
    made = (expected.float(), expected.float() - hidden.float())
    extent = min(one.max() - one.min() for one in made)
    return bool((found.float() - expected.float()).abs().max() <= tolerance * extent)
