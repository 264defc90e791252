"""What a family's decoder layer is made of, as data: where it has norms, what turns, what its attention is told.

Read from the names of its parts; whether it computes what these say is compared (``fused_check.py``). What is not known
here has no pattern. Inference thread only.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from app.models.checkpoint.cache_argument import NAMES, cache_argument
from app.models.weights.fused.experts import Experts, known_experts
from app.models.weights.fused.fused_norms import known_norm
from app.models.weights.fused.rotations import Order

# What a layer of these kinds is called with by name; further options are its attention's.
ARGUMENTS = {"hidden_states", "attention_mask", "position_ids", "use_cache", "position_embeddings", *NAMES}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
HEAD_NORMS = {"q_norm", "k_norm"}
GATED = {"gate_proj", "up_proj", "down_proj"}
GATED_AT_ONCE = {"gate_up_proj", "down_proj"}
ACTIVATIONS = ("act_fn", "activation_fn")
# Numbers that change what attention sees, which a few tokens would not show.
UNKNOWN_OPTIONS = ("clip_qkv",)


@dataclass(frozen=True)
class Norms:
    """The names of a layer's norms; None where there is none."""

    before_attention: str | None
    after_attention: str | None
    before_mlp: str | None
    after_mlp: str | None

    @property
    def names(self) -> set[str]:
        found = (self.before_attention, self.after_attention, self.before_mlp, self.after_mlp)
        return {name for name in found if name is not None}


FIRST, BEHIND, INNER, LAST = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
# Llama's; Gemma's; OLMo 2's; GLM-4's; Cohere's, whose two halves read the same.
KNOWN_NORMS = (
    Norms(FIRST, None, BEHIND, None),
    Norms(FIRST, BEHIND, INNER, LAST),
    Norms(None, BEHIND, None, LAST),
    Norms(FIRST, "post_self_attn_layernorm", BEHIND, "post_mlp_layernorm"),
    Norms(FIRST, None, FIRST, None),
)


@dataclass(frozen=True)
class Pattern:
    """A layer of a kind that can be fused.

    ``has_whole_norms``: norms of queries and keys are those of all heads together, before they are heads; else of each.
    ``has_gate``: its second half is one gated product; else that stays the family's own module, of which ``experts``
    says what it computes, if that is known. ``scale`` is what both halves are multiplied by before they are added.
    ``window`` and ``softcap`` are what its attention is told, which has a sink for each head where ``has_sinks``.
    """

    norms: Norms
    has_head_norms: bool = False
    has_whole_norms: bool = False
    has_gate: bool = True
    experts: Experts | None = None
    scale: float = 1.0
    order: Order = Order.HALVES
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False

    @property
    def is_parallel(self) -> bool:
        """Whether both halves read the same."""
        return self.norms.before_mlp is not None and self.norms.before_mlp == self.norms.before_attention


LLAMA = Pattern(KNOWN_NORMS[0])


def pattern_of(layer: nn.Module) -> Pattern | None:
    """What the names of the parts of ``layer`` say; None where it has others."""
    parts = dict(layer.named_children())
    attention, mlp = parts.pop("self_attn", None), parts.pop("mlp", None)
    norms = next((one for one in KNOWN_NORMS if one.names == set(parts)), None)
    if attention is None or mlp is None or norms is None or has_more(layer) or not takes_the_same(layer):
        return None
    if any(known_norm(parts[name]) is None for name in norms.names) or not has_known_attention(attention):
        return None
    merged = [attention, mlp] if has_known_gate(mlp) else [attention]
    if len({weight.dtype for part in merged for weight in part.parameters()}) != 1:
        return None
    heads = getattr(attention, "q_norm", None)
    return Pattern(
        norms,
        has_head_norms=heads is not None,
        has_whole_norms=heads is not None and cast(Any, heads).weight.shape[0] != cast(Any, attention).head_dim,
        has_gate=has_known_gate(mlp),
        experts=known_experts(mlp),
        scale=float(cast(Any, getattr(layer, "residual_multiplier", 1.0))),
        has_sinks=hasattr(attention, "sinks"),
    )


def takes_the_same(layer: nn.Module) -> bool:
    """Whether ``layer`` names no argument that a fused one would not understand, and takes a cache.

    Named ones only: a fused layer hands what it does not know to the attention function, where a cache under a
    new name would be lost without a word.
    """
    parameters = inspect.signature(layer.forward).parameters.values()
    named = {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    return named <= ARGUMENTS and cache_argument(layer.forward) is not None


def has_known_attention(attention: nn.Module) -> bool:
    """Whether it is made of four projections, and of norms of queries and keys or none."""
    names = {name for name, _ in attention.named_children()}
    if names - HEAD_NORMS != set(PROJECTIONS) or (names & HEAD_NORMS) not in (set(), HEAD_NORMS):
        return False
    if has_more(attention, {"sinks"}) or not hasattr(attention, "head_dim"):
        return False
    config = getattr(attention, "config", None)
    if any(getattr(config, name, None) is not None for name in UNKNOWN_OPTIONS):
        return False
    are_linear = all(type(getattr(attention, name)) is nn.Linear for name in PROJECTIONS)
    return are_linear and all(known_norm(getattr(attention, name)) is not None for name in names & HEAD_NORMS)


def has_known_gate(mlp: nn.Module) -> bool:
    """Whether it is one gated product, in two linear layers or three."""
    parts = dict(mlp.named_children())
    linear = {name for name, part in parts.items() if type(part) is nn.Linear}
    others = set(parts) - linear
    return linear in (GATED, GATED_AT_ONCE) and len(others) == 1 and others <= set(ACTIVATIONS) and not has_more(mlp)


def has_more(module: nn.Module, known: set[str] | None = None) -> bool:
    """Whether it has numbers of its own beside those of its parts."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return bool({name for name, _ in own} - (known or set()))


def activation_of(mlp: nn.Module) -> nn.Module:
    """The activation of a gated product."""
    return next(cast(nn.Module, part) for name in ACTIVATIONS if (part := getattr(mlp, name, None)) is not None)
