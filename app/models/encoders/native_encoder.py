"""Layers of an encoder by compiled C++ (``native_encoder.cpp``), on the model's own weights. Inference thread only.

What it computes is not checked here; a load compares it, and a change to it while a model serves does, too.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

# By the config's names; the numbers are those of the C++.
ACTIVATIONS = {"gelu": 1, "gelu_python": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3}
# In the order of the C++.
PRODUCTS = (
    *(f"attention.self.{name}" for name in ("query", "key", "value")),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


class Matrix(ctypes.Structure):
    """A weight where it lies; see the C++."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias")),
        *((name, c_int64) for name in ("num_in", "num_out", "out_stride", "in_stride")),
    )


class Norm(ctypes.Structure):
    """A layer norm."""

    _fields_ = tuple((name, c_void_p) for name in ("weight", "bias"))


class Layer(ctypes.Structure):
    """An encoder layer."""

    _fields_ = (
        *((name, Matrix) for name in ("query", "key", "value", "attended", "up", "down")),
        *((name, Norm) for name in ("attention_norm", "output_norm")),
    )


class Call(ctypes.Structure):
    """One pass."""

    _fields_ = (
        *((name, c_int64) for name in ("num_layers", "num_tokens", "num_texts", "longest", "num_threads")),
        *((name, c_int64) for name in ("hidden", "num_heads", "head_dim", "intermediate", "activation")),
        ("is_first_enough", c_int64),
        *((name, c_float) for name in ("epsilon", "scaling")),
        *((name, c_void_p) for name in ("layers", "begins", "states", "scratch")),
    )


@dataclass(frozen=True)
class EncoderLibrary:
    """The functions of the C++; both get the address of a ``Call``."""

    run: Callable[[int], None]
    scratch: Callable[[int], int]


def load_encoder_library(path: Path) -> EncoderLibrary:
    """What is in the file; it must be known who wrote it. Raises ``OSError``, ``AttributeError``."""
    found = ctypes.CDLL(str(path))
    run, scratch = found.forklift_encoder, found.forklift_encoder_scratch
    for function, result in ((run, None), (scratch, c_int64)):
        function.argtypes, function.restype = (c_void_p,), result
    return EncoderLibrary(run, scratch)


@dataclass(frozen=True)
class EncoderShape:
    """What code for the layers of an encoder is measured on; the code itself takes any."""

    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    intermediate_size: int
    activation: str
    epsilon: float
    scaling: float


class NativeEncoder:
    """The layers ``(*layers)`` of ``shape``, whose weights stay where they are: they may not be replaced any more.

    ``pays`` says of some numbers of tokens whether a pass of so many is worth it.
    """

    def __init__(self, library: EncoderLibrary, layers: Sequence[Any], shape: EncoderShape, pays: dict[int, bool]):
        self._library, self._pays = library, pays
        self._weights = [one for layer in layers for one in layer.parameters()]
        self._layers = (Layer * len(layers))(*map(_layer, layers))
        self._call = Call(
            num_layers=shape.num_layers,
            hidden=shape.hidden_size,
            num_heads=shape.num_heads,
            head_dim=shape.head_dim,
            intermediate=shape.intermediate_size,
            activation=ACTIVATIONS[shape.activation],
            epsilon=shape.epsilon,
            scaling=shape.scaling,
            layers=ctypes.addressof(self._layers),
        )

    def serves(self, num_tokens: int) -> bool:
        """Whether a pass of so many tokens is worth it: as one of the next smaller number that is known."""
        known = [number for number in self._pays if number <= num_tokens] or list(self._pays)
        return self._pays[max(known) if max(known) <= num_tokens else min(known)]

    def for_any_size(self) -> NativeEncoder:
        """The same, for passes that it is not worth it for, too."""
        other = copy.copy(self)
        other._pays = {1: True}
        return other

    def run(
        self, states: torch.Tensor, lengths: Sequence[int], *, is_first_enough: bool, num_threads: int
    ) -> torch.Tensor:
        """The states behind the last layer of texts end to end, ``(num_tokens, hidden)``, or of the first token of each
        text, ``(num_texts, hidden)``. ``states`` may be written to."""
        call = self._call
        states = states.contiguous()
        begins = torch.tensor([0, *itertools.accumulate(lengths)])
        call.num_tokens, call.num_texts, call.longest = len(states), len(lengths), max(lengths)
        call.num_threads, call.is_first_enough = num_threads, is_first_enough
        call.begins, call.states = begins.data_ptr(), states.data_ptr()
        scratch = torch.empty(self._library.scratch(ctypes.addressof(call)))
        call.scratch = scratch.data_ptr()
        self._library.run(ctypes.addressof(call))
        return states[: len(lengths)] if is_first_enough else states


def encoder_shape(model: PreTrainedModel, layers: Sequence[Any]) -> EncoderShape | str:
    """What the C++ is told of ``layers``; in words where it does not compute them."""
    activation = getattr(model.config, "hidden_act", None)
    if activation not in ACTIVATIONS or not all(_is_plain(layer) for layer in layers):
        return "its layers are not of BERT's kind in float32"
    shapes = {_shape(layer, len(layers), activation) for layer in layers}
    shape = shapes.pop()
    return "its layers differ from each other" if shapes or not all(_fits(one, shape) for one in layers) else shape


def _is_plain(layer: nn.Module) -> bool:
    """Whether its parts are there, plain ones in float32 on the CPU."""
    try:
        products, norms = ([layer.get_submodule(name) for name in names] for names in (PRODUCTS, NORMS))
    except AttributeError:
        return False
    is_known = all(type(one) is nn.Linear for one in products) and all(
        type(one) is nn.LayerNorm and one.bias is not None for one in norms
    )
    return is_known and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in layer.parameters())


def _shape(layer: Any, num_layers: int, activation: str) -> EncoderShape:
    attention = layer.attention.self
    return EncoderShape(
        num_layers,
        layer.output.dense.out_features,
        attention.num_attention_heads,
        attention.attention_head_size,
        layer.intermediate.dense.out_features,
        activation,
        layer.output.LayerNorm.eps,
        attention.scaling,
    )


def _fits(layer: Any, shape: EncoderShape) -> bool:
    """Whether the sizes of all weights are those that follow from ``shape``."""
    heads, hidden, inner = shape.num_heads * shape.head_dim, shape.hidden_size, shape.intermediate_size
    wanted = [*[(heads, hidden)] * 3, (hidden, heads), (inner, hidden), (hidden, inner)]
    found = [tuple(layer.get_submodule(name).weight.shape) for name in PRODUCTS]
    norms = [layer.get_submodule(name) for name in NORMS]
    return found == wanted and all(
        one.eps == shape.epsilon and tuple(one.normalized_shape) == (hidden,) for one in norms
    )


def _layer(layer: Any) -> Layer:
    matrices = [_matrix(layer.get_submodule(name)) for name in PRODUCTS]
    norms = [_norm(layer.get_submodule(name)) for name in NORMS]
    return Layer(*matrices, *norms)


def _matrix(linear: nn.Linear) -> Matrix:
    weight, bias = linear.weight, linear.bias
    num_out, num_in = weight.shape
    return Matrix(weight.data_ptr(), None if bias is None else bias.data_ptr(), num_in, num_out, *weight.stride())


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight.data_ptr(), norm.bias.data_ptr())
