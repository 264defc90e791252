"""The decode step of some rows as inductor is to see it: spans of fused layers of Llama's kind, then the output layer.

Everything that differs between two models of one shape comes in as an input, weights too: the code holds none, so no
weight is in memory twice and models that were tuned from one another share a package. One span serves all layers of a
model, a few per call: what a call costs is small beside them, and compiling takes a tenth of the time. Products are
those of ``products``. Inference thread only, or a process that compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.native_build import kinds_of
from app.models.compiled.products import form_of, is_plain, product, weights_of
from app.models.compiled.steps.step_shape import NORMS, PRODUCTS, Shape, names_in, parts_in
from app.models.weights.fused.experts import expert_tensors
from app.models.weights.fused.fused_layers import FusedLayer
from app.models.weights.fused.fused_norms import Norm, known_norm
from app.models.weights.fused.rotations import Order
from app.models.weights.packing import unpacked

# Tells the tracer what holds of sizes that change; torch has no types for it.
check: Callable[[bool], None] = torch._check


@dataclass(frozen=True)
class Places:
    """Where the tokens of a step stand, as in ``Span.forward``."""

    positions: torch.Tensor
    entries: torch.Tensor
    rows: torch.Tensor


class Span(nn.Module):
    """A few decoder layers for one token of each of ``num_rows`` rows."""

    def __init__(self, shape: Shape, activation: nn.Module, num_rows: int = 1):
        super().__init__()
        self._shape, self._activation, self._num_rows = shape, activation, num_rows

    def forward(
        self,
        states: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        positions: torch.Tensor,
        entries: torch.Tensor,
        rows: torch.Tensor,
        layers: list[list[torch.Tensor]],
    ) -> torch.Tensor:
        """``states`` ``(num_rows, hidden)`` to the same.

        ``cos`` and ``sin`` are ``(num_rows, head_dim)``, ``positions`` and ``rows`` ``(num_rows,)``: where each token
        stands, and the row of the cache that has what comes before it. ``entries`` are 0, 1, .. up to the last
        position. A layer is its weights, then keys and values ``(cache rows, kv_heads, capacity, head_dim)``, which are
        written in place. Two tokens may be the same one of the same row: they write the same.
        """
        for layer in layers:
            check(entries.shape[0] <= layer[-1].shape[2])
            states = self._layer(states, cos, sin, Places(positions, entries, rows), layer)
        return states

    def _layer(
        self,
        states: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        places: Places,
        layer: list[torch.Tensor],
    ) -> torch.Tensor:
        shape = self._shape
        *weights, keys, values = layer
        parts = parts_in(weights, shape)
        heads = self._product(normed(states, parts["input_layernorm"][0], shape.epsilons[0]), "qkv_proj", parts)
        heads = heads.view(self._num_rows, -1, shape.head_dim)
        num_rotated = shape.num_queries + shape.num_kv_heads
        rotated = rotate(heads[:, :num_rotated], cos[:, None], sin[:, None])
        store(keys, rotated[:, shape.num_queries :], places)
        store(values, heads[:, num_rotated:], places)
        attended = attend(rotated[:, : shape.num_queries], keys, values, places, shape.scaling)
        states = states + self._product(attended.reshape(self._num_rows, -1), "o_proj", parts)
        normed_states = normed(states, parts["post_attention_layernorm"][0], shape.epsilons[1])
        gate, up = self._product(normed_states, "gate_up_proj", parts).chunk(2, dim=-1)
        return states + self._product(self._activation(gate) * up, "down_proj", parts)

    def _product(self, states: torch.Tensor, name: str, parts: dict[str, list[torch.Tensor]]) -> torch.Tensor:
        return product(states, self._shape.form(name), self._shape.num_out(name), parts[name])


class Head(nn.Module):
    """The last norm and the output layer for one token of each row."""

    def __init__(self, shape: Shape):
        super().__init__()
        self._shape = shape

    def forward(self, states: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
        """``states`` ``(rows, hidden)`` to logits ``(rows, vocab)``; ``weights``: norm, then the output layer's."""
        norm, *output = weights
        states = normed(states, norm, self._shape.epsilons[2])
        return product(states, self._shape.head_form, self._shape.vocab_size, output)


def normed(states: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """RMS norm, computed in float32."""
    wide = states.float()
    scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + epsilon)
    return ((wide * scale) * weight.float()).to(states.dtype)


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of ``(rows, heads, head_dim)``."""
    half = heads.shape[-1] // 2
    turned = torch.cat((-heads[..., half:], heads[..., :half]), dim=-1)
    return heads * cos + turned * sin


def store(buffer: torch.Tensor, heads: torch.Tensor, places: Places) -> None:
    """Write ``(rows, kv_heads, head_dim)`` into ``buffer`` ``(cache rows, kv_heads, capacity, head_dim)``."""
    which = torch.arange(heads.shape[1])
    buffer.index_put_((places.rows[:, None], which[None], places.positions[:, None]), heads)


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, places: Places, scaling: float
) -> torch.Tensor:
    """Of ``(rows, heads, head_dim)`` to what the cache has of each row up to its position; sums are float32."""
    num_rows, length = queries.shape[0], places.entries.shape[0]
    if num_rows == 1:
        keys, values = keys[:, :, :length], values[:, :, :length]
    else:
        keys, values = keys[places.rows, :, :length], values[places.rows, :, :length]
    grouped = queries.view(num_rows, keys.shape[1], -1, 1, queries.shape[-1]).float()
    scores = (grouped * keys[:, :, None].float()).sum(dim=-1) * scaling
    if num_rows > 1:
        is_later = places.entries > places.positions[:, None]
        scores = scores.masked_fill(is_later[:, None, None], -torch.inf)
    weighted = scores.softmax(dim=-1)[..., None] * values[:, :, None].float()
    return weighted.sum(dim=-2).to(queries.dtype)


@dataclass(frozen=True)
class Parts:
    """A model that a step can be compiled for: its shape, and what the step takes from it."""

    shape: Shape
    activation: nn.Module | None
    layers: list[list[torch.Tensor]]
    head: list[torch.Tensor]


def parts_of(checkpoint: Checkpoint, *, unpacks: bool = False) -> Parts | str:
    """The parts of a model, or in words why there are none.

    ``unpacks``: of weights that are packed, copies that are not.
    """
    shape = model_shape(checkpoint)
    if isinstance(shape, str):
        return shape
    layers, head = list(checkpoint.model.base_model.layers), checkpoint.model.get_output_embeddings()
    if not unpacks and not all(is_plain(one) for one in [*linear_parts(layers), head]):
        return "its weights are packed, which pays for the steps of several sequences"
    norm = known_norm(checkpoint.model.base_model.norm)
    assert norm is not None, "is asked before"
    tensors = [layer_tensors(layer, shape) for layer in layers]
    return Parts(shape, getattr(layers[0], "act_fn", None), tensors, [norm_of(norm), *taken(head)])


def model_shape(checkpoint: Checkpoint) -> Shape | str:
    """The shape of a model, packed or not, or in words why no step can be compiled for it."""
    layers = list(getattr(checkpoint.model.base_model, "layers", []))
    if checkpoint.device.type != "cpu":
        return "steps are compiled for the CPU only"
    if not layers or not all(isinstance(layer, FusedLayer) for layer in layers):
        return "its layers are not all fused ones (docs/models.md)"
    if not all(layer.pattern.has_gate or layer.pattern.experts for layer in layers):
        return "its layers have experts, or a kind of MLP, that there is no code for (docs/models.md)"
    head, norm = checkpoint.model.get_output_embeddings(), getattr(checkpoint.model.base_model, "norm", None)
    if any(form_of(one) is None for one in [*linear_parts(layers), head]):
        return "its weights lie in tiles, which pay for the steps of several sequences"
    last = known_norm(norm)
    if last is None or len({one.is_centered for one in [last, *norms_in(layers)]}) > 1:
        return "a norm of it is of another kind"
    shapes = {shape_of(layer, checkpoint, layers, last) for layer in layers}
    if len(shapes) > 1:
        return "its layers differ from one another"
    shape = shapes.pop()
    if shape.is_centered and shape.pattern.has_head_norms:
        return "a norm of it is of another kind"
    if not shape.is_llamas and kinds_of(shape) is None:
        return "layers of its kind have code of whole passes only, and there is none for its weights or this processor"
    return shape


def linear_parts(layers: list[Any]) -> list[nn.Module]:
    """The linear parts of all layers."""
    return [part for layer in layers for name in PRODUCTS if (part := getattr(layer, name, None)) is not None]


def norms_in(layers: list[Any]) -> list[Norm]:
    """All norms of all layers."""
    return [one for layer in layers for name in NORMS if (one := getattr(layer, name, None)) is not None]


def shape_of(layer: Any, checkpoint: Checkpoint, layers: list[Any], last: Norm) -> Shape:
    """The shape of a model whose layers are all like ``layer``: how far they see may differ, and which ones turn."""
    head = cast(Any, checkpoint.model.get_output_embeddings())
    norms = [last if name == "norm" else getattr(layer, name) for name in NORMS]
    orders = {one.pattern.order for one in layers} - {Order.NONE}
    order = (
        layer.pattern.order if orders and layer.pattern.order is not Order.NONE else min(orders, default=Order.HALVES)
    )
    forms = [form_of(one) for one in [*linear_parts([layer]), head]]
    *forms_of_layer, head_form = [form for form in forms if form is not None]
    experts = layer.pattern.experts
    intermediate = layer.down_proj.in_features if experts is None else experts.intermediate_size
    activation = activation_name(layer.act_fn) if experts is None else experts.activation
    return Shape(
        num_layers=len(layers),
        hidden_size=layer.o_proj.out_features,
        num_queries=layer.num_queries,
        num_kv_heads=layer.num_queries // layer.num_key_value_groups,
        head_dim=layer.head_dim,
        intermediate_size=intermediate,
        vocab_size=head.out_features,
        activation=activation,
        scaling=float(layer.scaling),
        epsilons=tuple(0.0 if norm is None else float(norm.variance_epsilon) for norm in norms),
        forms=tuple(forms_of_layer),
        head_form=head_form,
        dtype=str(checkpoint.dtype).removeprefix("torch."),
        pattern=replace(layer.pattern, window=None, order=order),
        is_centered=last.is_centered,
    )


def activation_name(module: nn.Module) -> str:
    """Of a gate's activation."""
    return f"{type(module).__module__}.{module!r}"


def layer_tensors(layer: Any, shape: Shape) -> list[torch.Tensor]:
    """What a compiled layer takes, in the order that it takes it in."""
    found: list[torch.Tensor] = []
    for name in names_in(shape):
        if name == "experts":
            assert shape.pattern.experts is not None, "is asked before"
            found += expert_tensors(layer.mlp, shape.pattern.experts)
        elif name in PRODUCTS:
            found += taken(getattr(layer, name))
        else:
            part = getattr(layer, name)
            found.append(part.detach() if name == "sinks" else norm_of(part))
    return found


def norm_of(norm: Any) -> torch.Tensor:
    """The weight of a norm."""
    return cast(torch.Tensor, norm.weight.detach())


def taken(layer: nn.Module) -> list[torch.Tensor]:
    """What a product takes of a layer, from a copy where it is packed."""
    return weights_of(layer if is_plain(layer) else unpacked(layer))
