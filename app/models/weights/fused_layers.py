"""Decoder layers of the Llama kind with fewer, larger operations.

On small batches a layer's time goes into starting many small operations. Here queries, keys and
values come from one projection, gate and up from another, the rotation of queries and keys is one
chain, and each norm one call. A layer is replaced only where its parts are those of this kind and
its results were compared, so a family that computes something else keeps its own. Inference thread only.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import rms_norm
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.core.logs.logging import get_logger
from app.models.checkpoint.cache_argument import NAMES, cache_argument
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.grids import merged_grid, set_grid

PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
# What a layer of this kind is called with by name; further options are its attention's.
ARGUMENTS = {"hidden_states", "attention_mask", "position_ids", "use_cache", "position_embeddings", *NAMES}
# Of the range of what a layer adds, computed in float32.
TOLERANCE = 1e-4
NUM_CHECKED_TOKENS = 5
# The name of an attention that notes how far a layer says that it sees.
LISTENING = "forklift_listening"

log = get_logger("models")


class Rotation:
    """Rotary embedding of ``(.., head_dim)`` states; what all layers of a pass share is made once."""

    def __init__(self) -> None:
        self._embeddings: tuple[torch.Tensor, torch.Tensor] | None = None
        self._cos = self._signed_sin = torch.empty(0)

    def __call__(self, states: torch.Tensor, embeddings: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Rotate ``(rows, heads, num_new, head_dim)`` by cosine and sine, each ``(rows, num_new, head_dim)``."""
        if embeddings is not self._embeddings:
            cos, sin = embeddings
            half = sin.shape[-1] // 2
            self._embeddings, self._cos = embeddings, cos[:, None]
            self._signed_sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)[:, None]
        return torch.addcmul(states * self._cos, states.roll(states.shape[-1] // 2, -1), self._signed_sin)


class FusedLayer(nn.Module):
    """What ``layer``, a decoder layer of the Llama kind, computes; takes over its weights.

    ``config``, ``layer_idx``, ``is_causal`` and ``num_key_value_groups`` are what transformers'
    attention functions ask a module for.
    """

    def __init__(self, layer: nn.Module, rotation: Rotation, sliding_window: int | None):
        super().__init__()
        self._sliding_window = sliding_window
        attention, mlp = cast(Any, layer.self_attn), cast(Any, layer.mlp)
        self.config, self.layer_idx, self.is_causal = attention.config, attention.layer_idx, True
        self.num_key_value_groups = attention.num_key_value_groups
        self.scaling, self.head_dim, self._rotation = attention.scaling, attention.head_dim, rotation
        self._cache_argument = str(cache_argument(layer.forward))
        self.num_queries = attention.q_proj.out_features // attention.head_dim
        self._num_rotated = self.num_queries + attention.k_proj.out_features // attention.head_dim
        self.qkv_proj = merged((attention.q_proj, attention.k_proj, attention.v_proj))
        self.o_proj = attention.o_proj
        self.gate_up_proj = merged((mlp.gate_proj, mlp.up_proj))
        self.act_fn, self.down_proj = mlp.act_fn, mlp.down_proj
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm

    def merged_layers(self) -> list[tuple[nn.Module, dict[str, int]]]:
        """Each linear layer, and the family's own that it computes: names and numbers of outputs, in their order."""
        heads = {"q_proj": self.num_queries, "k_proj": self._num_rotated - self.num_queries}
        heads["v_proj"] = heads["k_proj"]
        hidden, inner = cast(Any, self.o_proj).out_features, cast(Any, self.down_proj).in_features
        return [
            (self.qkv_proj, {f"self_attn.{name}": count * self.head_dim for name, count in heads.items()}),
            (self.o_proj, {"self_attn.o_proj": hidden}),
            (self.gate_up_proj, {"mlp.gate_proj": inner, "mlp.up_proj": inner}),
            (self.down_proj, {"mlp.down_proj": hidden}),
        ]

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        use_cache: bool = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """``(rows, num_new, hidden)`` to the same; the cache comes under the name that ``layer`` had for it."""
        assert position_embeddings is not None
        cache = options.pop(self._cache_argument, None)
        normed = normalized(hidden_states, self.input_layernorm)
        attended = self._attend(normed, attention_mask, cache, position_embeddings, options)
        hidden_states = hidden_states + self.o_proj(attended)
        normed = normalized(hidden_states, self.post_attention_layernorm)
        gate, up = self.gate_up_proj(normed).chunk(2, dim=-1)
        added: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
        return hidden_states + added

    def _attend(
        self,
        normed: torch.Tensor,
        mask: torch.Tensor | None,
        cache: Any,
        embeddings: tuple[torch.Tensor, torch.Tensor],
        options: dict[str, Any],
    ) -> torch.Tensor:
        num_rows, num_new, _ = normed.shape
        states = self.qkv_proj(normed).view(num_rows, num_new, -1, self.head_dim).transpose(1, 2)
        rotated = self._rotation(states[:, : self._num_rotated], embeddings)
        queries, keys = rotated[:, : self.num_queries], rotated[:, self.num_queries :]
        values = states[:, self._num_rotated :]
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer_idx)
        attention = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        told = {"dropout": 0.0, "scaling": self.scaling, "sliding_window": self._sliding_window}
        attended, _ = attention(self, queries, keys, values, mask, **told, **options)
        return cast(torch.Tensor, attended).reshape(num_rows, num_new, -1)


def fuse_layers(checkpoint: Checkpoint) -> int:
    """Replace the decoder layers of ``checkpoint.model`` that can be, in place; how many were.

    Only those that take their attention from transformers' interface, on a device of their own.
    """
    model = checkpoint.model.base_model
    rotary, layers = getattr(model, "rotary_emb", None), getattr(model, "layers", None)
    if rotary is None or not isinstance(layers, nn.ModuleList) or model.config._attn_implementation != "sdpa":
        return 0
    rotation, num_fused = Rotation(), 0
    for i, layer in enumerate(layers):
        if not is_of_this_kind(layer):
            continue
        compared = compare(layer, rotary, checkpoint.device)
        if compared.is_same:
            layers[i] = FusedLayer(layer, rotation, compared.sliding_window)
            num_fused += 1
    log.info("layers_fused", num_fused=num_fused, num_layers=len(layers))
    return num_fused


def is_of_this_kind(layer: nn.Module) -> bool:
    """Whether ``layer`` has the parts of Llama's, and no others."""
    for path, names in PARTS.items():
        if {name for name, _ in layer.get_submodule(path).named_children()} != names:
            return False
    if not takes_the_same(layer):
        return False
    linear = [getattr(layer.self_attn, name) for name in PARTS["self_attn"]]
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    are_known = all(type(part) is nn.Linear for part in linear) and all(hasattr(n, "variance_epsilon") for n in norms)
    return are_known and len({weight.dtype for weight in layer.parameters()}) == 1


def takes_the_same(layer: nn.Module) -> bool:
    """Whether ``layer`` names no argument that a fused one would not understand, and takes a cache.

    Named ones only: a fused layer hands what it does not know to the attention function, where a cache under a
    new name would be lost without a word.
    """
    parameters = inspect.signature(layer.forward).parameters.values()
    named = {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    return named <= ARGUMENTS and cache_argument(layer.forward) is not None


@dataclass(frozen=True)
class Comparison:
    """Whether a fused layer computes the same, and how far the family's own tells the attention function to see."""

    is_same: bool
    sliding_window: int | None


@torch.inference_mode()
def compare(layer: nn.Module, rotary: nn.Module, device: torch.device) -> Comparison:
    """What a fused ``layer`` gives in float32 beside ``layer``, for a few random states and then one more."""
    own = cast(Any, deepcopy(layer).float())
    ALL_ATTENTION_FUNCTIONS.register(LISTENING, listening_attention)
    own.self_attn.config._attn_implementation = LISTENING
    width = int(own.input_layernorm.weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    states = torch.randn((1, NUM_CHECKED_TOKENS, width), generator=generator).to(device)
    expected = added_by(own, own, rotary, states)
    window: int | None = own.self_attn.told_window
    found = added_by(FusedLayer(own, Rotation(), window), own, rotary, states)
    return Comparison(bool((found - expected).abs().max() <= TOLERANCE * (expected.max() - expected.min())), window)


def listening_attention(module: Any, *states: torch.Tensor | None, **options: Any) -> tuple[torch.Tensor, Any]:
    """torch's attention, which notes in ``module`` what it is told of a window."""
    module.told_window = options.get("sliding_window")
    attended: tuple[torch.Tensor, Any] = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *states, **options)
    return attended


def added_by(layer: nn.Module, own: nn.Module, rotary: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """What ``layer`` adds to ``states``: to all but the last in one pass, then to the last one from the cache.

    It is called as the model calls its ``own`` layer.
    """
    cache, num_first, added = DynamicCache(), states.shape[1] - 1, []
    for first, last in ((0, num_first), (num_first, num_first + 1)):
        positions = torch.arange(first, last, device=states.device)[None]
        some = states[:, first:last]
        options = {str(cache_argument(own.forward)): cache, "use_cache": True, "position_ids": positions}
        added.append(layer(some, position_embeddings=rotary(some, positions), **options) - some)
    return torch.cat(added, dim=1)


def merged(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer whose output is that of ``layers``, one behind the other."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    has_bias = any(layer.bias is not None for layer in layers)
    one = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias, device="meta")
    one.weight = nn.Parameter(weight, requires_grad=False)
    if has_bias:
        biases = [
            weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers
        ]
        one.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    set_grid(one, merged_grid(layers))
    return one


def normalized(states: torch.Tensor, norm: Any) -> torch.Tensor:
    """RMS norm by torch's own function, with the weight and epsilon of transformers' ``norm``."""
    return rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)
