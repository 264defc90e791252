"""Decoder layers with fewer, larger operations: Llama's, and others that ``layer_patterns.py`` describes.

On small batches a layer's time goes into starting many small operations. Here queries, keys and
values come from one projection, gate and up from another, the rotation of queries and keys is one
chain, and each norm one call. A layer is replaced only where its parts are known and
its results were compared, so a family that computes something else keeps its own. Inference thread only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.core.logs.logging import get_logger
from app.models.checkpoint.cache_argument import cache_argument
from app.models.checkpoint.loader import Checkpoint
from app.models.weights.fused.experts import lay_by_output
from app.models.weights.fused.fused_check import compare
from app.models.weights.fused.fused_norms import Norm, known_norm
from app.models.weights.fused.layer_patterns import Pattern, activation_of, pattern_of
from app.models.weights.fused.rotations import Embeddings, Rotation
from app.models.weights.grids import merged_grid, set_grid

log = get_logger("models")


class FusedLayer(nn.Module):
    """What ``layer``, a decoder layer of a known ``pattern``, computes; takes over its weights.

    ``config``, ``layer_idx``, ``is_causal`` and ``num_key_value_groups`` are what transformers'
    attention functions ask a module for.
    """

    def __init__(self, layer: nn.Module, rotation: Rotation, pattern: Pattern):
        super().__init__()
        attention, mlp = cast(Any, layer.self_attn), cast(Any, layer.mlp)
        self.pattern, self._rotation = pattern, rotation
        self.config, self.layer_idx, self.is_causal = attention.config, attention.layer_idx, attention.is_causal
        self.num_key_value_groups = attention.num_key_value_groups
        self.scaling, self.head_dim = attention.scaling, attention.head_dim
        self._cache_argument = str(cache_argument(layer.forward))
        # What families without torch's attention take in the place of it.
        self._own_attention = getattr(sys.modules[type(attention).__module__], "eager_attention_forward", None)
        self.num_queries = attention.q_proj.out_features // attention.head_dim
        self.num_rotated = self.num_queries + attention.k_proj.out_features // attention.head_dim
        self.qkv_proj = merged((attention.q_proj, attention.k_proj, attention.v_proj))
        self.o_proj = attention.o_proj
        self._take_norms(layer, attention)
        self.told: dict[str, Any] = {"dropout": 0.0, "scaling": self.scaling, "sliding_window": pattern.window}
        if pattern.softcap is not None:
            self.told["softcap"] = pattern.softcap
        if pattern.has_sinks:
            self.sinks = attention.sinks
        if pattern.has_gate:
            is_merged = hasattr(mlp, "gate_up_proj")
            self.gate_up_proj = mlp.gate_up_proj if is_merged else merged((mlp.gate_proj, mlp.up_proj))
            self.gate_names = ("gate_up_proj",) if is_merged else ("gate_proj", "up_proj")
            self.act_fn, self.down_proj = activation_of(mlp), mlp.down_proj
        else:
            self.mlp = mlp

    def _take_norms(self, layer: nn.Module, attention: Any) -> None:
        norms = self.pattern.norms
        self.input_layernorm = taken_norm(layer, norms.before_attention)
        self.after_attention_norm = taken_norm(layer, norms.after_attention)
        self.post_attention_layernorm = taken_norm(layer, norms.before_mlp)
        self.after_mlp_norm = taken_norm(layer, norms.after_mlp)
        has_norms = self.pattern.has_head_norms
        self.q_norm, self.k_norm = (taken_norm(attention, name if has_norms else None) for name in ("q_norm", "k_norm"))

    def merged_layers(self) -> list[tuple[nn.Module, dict[str, int]]]:
        """Each linear layer, and the family's own that it computes: names and numbers of outputs, in their order."""
        heads = {"q_proj": self.num_queries, "k_proj": self.num_rotated - self.num_queries}
        heads["v_proj"] = heads["k_proj"]
        hidden = cast(Any, self.o_proj).out_features
        found: list[tuple[nn.Module, dict[str, int]]] = [
            (self.qkv_proj, {f"self_attn.{name}": count * self.head_dim for name, count in heads.items()}),
            (self.o_proj, {"self_attn.o_proj": hidden}),
        ]
        if not self.pattern.has_gate:
            return found
        inner = 2 * cast(Any, self.down_proj).in_features // len(self.gate_names)
        return [
            *found,
            (self.gate_up_proj, {f"mlp.{name}": inner for name in self.gate_names}),
            (self.down_proj, {"mlp.down_proj": hidden}),
        ]

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        use_cache: bool = False,
        position_embeddings: Embeddings | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """``(rows, num_new, hidden)`` to the same; the cache comes under the name that ``layer`` had for it."""
        assert position_embeddings is not None
        cache = options.pop(self._cache_argument, None)
        normed = normalized(hidden_states, self.input_layernorm)
        attended = self._attend(normed, attention_mask, cache, position_embeddings, options)
        added = normalized(self.o_proj(attended), self.after_attention_norm)
        if self.pattern.is_parallel:
            return hidden_states + added + self._fed(normed)
        hidden_states = torch.add(hidden_states, added, alpha=self.pattern.scale)
        added = self._fed(normalized(hidden_states, self.post_attention_layernorm))
        return torch.add(hidden_states, normalized(added, self.after_mlp_norm), alpha=self.pattern.scale)

    def _fed(self, normed: torch.Tensor) -> torch.Tensor:
        if not self.pattern.has_gate:
            found = self.mlp(normed)
            # Some give what their router says behind it.
            return cast(torch.Tensor, found[0] if isinstance(found, tuple) else found)
        gate, up = self.gate_up_proj(normed).chunk(2, dim=-1)
        fed: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
        return fed

    def _attend(
        self,
        normed: torch.Tensor,
        mask: torch.Tensor | None,
        cache: Any,
        embeddings: Embeddings,
        options: dict[str, Any],
    ) -> torch.Tensor:
        num_rows, num_new, _ = normed.shape
        states = self._heads(self.qkv_proj(normed))
        rotated = self._rotation(states[:, : self.num_rotated], embeddings)
        queries, keys = rotated[:, : self.num_queries], rotated[:, self.num_queries :]
        values = states[:, self.num_rotated :]
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer_idx)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, self._own_attention)
        told = {**self.told, "s_aux": self.sinks} if self.pattern.has_sinks else self.told
        attended, _ = attention(self, queries, keys, values, mask, **told, **options)
        return cast(torch.Tensor, attended).reshape(num_rows, num_new, -1)

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """``(rows, num_new, ..)`` queries, keys and values to normed ones ``(rows, heads, num_new, head_dim)``."""
        num_rows, num_new, _ = projected.shape
        if self.q_norm is None or self.k_norm is None:
            return projected.view(num_rows, num_new, -1, self.head_dim).transpose(1, 2)
        sizes = self.num_queries, self.num_rotated - self.num_queries
        if self.pattern.has_whole_norms:
            size = self.head_dim
            queries, keys, values = torch.split(projected, [one * size for one in (*sizes, sizes[1])], dim=-1)
            projected = torch.cat((self.q_norm(queries), self.k_norm(keys), values), dim=-1)
            return projected.view(num_rows, num_new, -1, size).transpose(1, 2)
        states = projected.view(num_rows, num_new, -1, self.head_dim)
        queries, keys, values = torch.split(states, [*sizes, sizes[1]], dim=2)
        return torch.cat((self.q_norm(queries), self.k_norm(keys), values), dim=2).transpose(1, 2)


def fuse_layers(checkpoint: Checkpoint) -> int:
    """Replace the decoder layers of ``checkpoint.model`` that can be, in place; how many were.

    Only those that take their attention from transformers' interface, on a device of their own.
    """
    model = checkpoint.model.base_model
    rotary, layers = getattr(model, "rotary_emb", None), getattr(model, "layers", None)
    if rotary is None or not isinstance(layers, nn.ModuleList):
        return 0
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return 0
    rotations: dict[Any, Rotation] = {}
    num_fused = 0
    for i, layer in enumerate(layers):
        pattern = pattern_of(layer)
        compared = None if pattern is None else compare(FusedLayer, layer, pattern, rotary, checkpoint.device)
        if compared is None:
            continue
        # Layers of a kind get the same cosines in a pass.
        kind = compared.order, compared.window
        layers[i] = FusedLayer(layer, rotations.setdefault(kind, Rotation(compared.order)), compared)
        num_fused += 1
    log.info("layers_fused", num_fused=num_fused, num_layers=len(layers))
    return num_fused


def lay_for_code(checkpoint: Checkpoint) -> None:
    """Have the weights of fused layers' experts lie as compiled passes read them, one after the other."""
    for layer in checkpoint.model.modules():
        if isinstance(layer, FusedLayer) and layer.pattern.experts is not None:
            lay_by_output(layer.mlp, layer.pattern.experts)


def taken_norm(module: nn.Module, name: str | None) -> Norm | None:
    """The norm of that name, as one call."""
    return None if name is None else known_norm(getattr(module, name))


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


def normalized(states: torch.Tensor, norm: Norm | None) -> torch.Tensor:
    """Its norm; the states themselves where there is none."""
    if norm is None:
        return states
    found: torch.Tensor = norm(states)
    return found
