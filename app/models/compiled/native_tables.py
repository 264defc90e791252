"""What ``native_pass.cpp`` is told, laid out as it reads it: addresses of weights where they lie, and sizes.

Inference thread only, or a process that compiles.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Protocol

import torch
from torch.nn.functional import pad

from app.models.compiled.products import Form
from app.models.compiled.steps.step_graph import Parts
from app.models.compiled.steps.step_shape import NORMS, PRODUCTS, parts_in
from app.models.weights.fused.experts import ExpertWeights
from app.models.weights.int4_linear import GROUP_SIZE
from app.models.weights.int8_plain import CODES_PER_WORD

# Outputs that the last block of a matrix may lack.
MOST_FILLING = 16
# Of the weights of a part as whole numbers, and of how many outputs there are at least; two parts at a time.
PART_WHOLES, BLOCK_OUTPUTS = 1 << 16, 16
# Where a matrix belongs, as the C++ numbers it: its weights may be of another kind there.
IN_LAYER, IN_HEAD, IN_EXPERTS = range(3)
# Norms of a layer in the order of the C++.
PLACES = ("input_layernorm", "after_attention_norm", "post_attention_layernorm", "after_mlp_norm", "q_norm", "k_norm")


class Code(Protocol):
    """The compiled functions, as they take addresses."""

    def run(self, call: int, places: int, /) -> None:
        """A pass: of a ``Call``, and of scratch for whole numbers."""

    def measure(self, matrix: int, steps: int, num_threads: int, place: int, /) -> None:
        """Fill in what products by a ``Matrix`` need to know of its weights, of floats their steps, too."""


class Matrix(ctypes.Structure):
    """A weight and what belongs to it; see the C++."""

    _fields_ = (
        ("weight", c_void_p),
        *((name, c_int64) for name in ("num_in", "num_out", "width")),
        *((name, c_void_p) for name in ("steps", "bias", "extra", "factors")),
        ("input_norm", c_float),
    )


class Norm(ctypes.Structure):
    """The weight of a norm, or none."""

    _fields_ = (("weight", c_void_p), ("epsilon", c_float), ("is_centered", c_int32))


class Experts(ctypes.Structure):
    """A layer's experts, or none; see the C++."""

    _fields_ = (
        *((name, c_void_p) for name in ("router", "router_bias", "gate_up", "down")),
        *((name, c_int64) for name in ("num_experts", "top_k", "is_interleaved", "is_of_all")),
    )


class Layer(ctypes.Structure):
    """A decoder layer and its part of the cache."""

    _fields_ = (
        *((name, Norm) for name in ("before_attention", "after_attention", "before_mlp", "after_mlp")),
        *((name, Norm) for name in ("query_norm", "key_norm")),
        ("sinks", c_void_p),
        *((name, Matrix) for name in ("qkv", "o", "gate_up", "down")),
        ("experts", Experts),
        *((name, c_int64) for name in ("turn", "reach", "size", "capacity")),
        *((name, c_void_p) for name in ("keys", "values")),
    )


class Turn(ctypes.Structure):
    """Cosines and sines of each token."""

    _fields_ = (("cos", c_void_p), ("sin", c_void_p))


class Piece(ctypes.Structure):
    """Tokens of a row of the cache, from a position on."""

    _fields_ = tuple((name, c_int64) for name in ("row", "start", "count"))


class Call(ctypes.Structure):
    """One pass."""

    _fields_ = (
        *((name, c_int64) for name in ("num_layers", "num_tokens", "num_pieces", "num_wanted", "num_threads")),
        *((name, c_int64) for name in ("hidden", "num_queries", "num_kv_heads", "head_dim", "intermediate")),
        *((name, c_int64) for name in ("num_turned", "activation", "has_pairs", "has_whole_norms", "is_parallel")),
        *((name, c_float) for name in ("scaling", "scale", "softcap", "slope", "limit")),
        *((name, c_void_p) for name in ("layers", "pieces", "states", "turns", "wanted")),
        ("last_norm", Norm),
        *((name, c_void_p) for name in ("head", "logits")),
        ("task_tokens", c_int64),
        *((name, c_void_p) for name in ("inputs", "heads", "attended", "activated", "added")),
        *((name, c_void_p) for name in ("given", "shares", "gathered", "taken", "choice")),
        *((name, c_void_p) for name in ("wholes", "units", "totals")),
        *((name, c_void_p) for name in ("scores", "row", "packed")),
        *((name, c_int64) for name in ("scores_size", "row_size", "packed_size")),
        ("runs", c_void_p),
        *((name, c_int64) for name in ("num_runs", "lowered_size")),
        ("lowered", c_void_p),
    )


class Tables:
    """Of the weights of ``parts``, which stay where they are; ``code`` measures them, reading each once.

    Norms, biases, steps and what columns read are small, and are held once more as the C++ reads them.
    """

    def __init__(self, parts: Parts, code: Code):
        self._shape, self._code, self._held = parts.shape, code, list[object]()
        self._weights = parts
        self.layers = (Layer * len(parts.layers))(*map(self._layer, parts.layers))
        norm, *output = parts.head
        self.last_norm = self._norm("norm", norm)
        sizes = parts.shape.hidden_size, parts.shape.vocab_size
        self.head = self._matrix(output, parts.shape.head_form, *sizes, place=IN_HEAD)

    @property
    def widest(self) -> int:
        """The most inputs that a matrix reads of a token, filled up as rows of whole numbers are."""
        shape = self._shape
        of_layers = (max(one.qkv.width, one.o.width, one.gate_up.width, one.down.width) for one in self.layers)
        # What experts read is as wide as what is in front of them, or behind.
        of_experts = (shape.hidden_size, shape.intermediate_size) if shape.pattern.experts is not None else ()
        return -(-int(max(self.head.width, *of_layers, *of_experts)) // MOST_FILLING) * MOST_FILLING

    def _layer(self, weights: list[torch.Tensor]) -> Layer:
        shape, parts = self._shape, parts_in(weights, self._shape)
        attended = shape.num_queries * shape.head_dim
        inputs = {"qkv_proj": shape.hidden_size, "o_proj": attended, "down_proj": shape.intermediate_size}
        matrices = [
            self._matrix(parts[name], shape.form(name), inputs.get(name, shape.hidden_size), shape.num_out(name))
            if name in parts
            else Matrix()
            for name in PRODUCTS
        ]
        norms = [self._norm(name, parts[name][0]) if name in parts else Norm() for name in PLACES]
        sinks = self._wide(parts["sinks"][0]) if "sinks" in parts else None
        experts = self._experts(parts["experts"]) if "experts" in parts else Experts()
        return Layer(*norms, sinks, *matrices, experts)

    def _experts(self, tensors: list[torch.Tensor]) -> Experts:
        known = self._shape.pattern.experts
        assert known is not None
        weights = ExpertWeights.of(tensors, known)
        arrays = [
            self._matrices(*both)
            for both in ((weights.gate_up, weights.gate_up_bias), (weights.down, weights.down_bias))
        ]
        return Experts(
            self._wide(weights.router),
            None if weights.router_bias is None else self._wide(weights.router_bias),
            *map(ctypes.addressof, arrays),
            known.num_experts,
            known.top_k,
            known.is_interleaved,
            known.is_of_all,
        )

    def _matrices(self, weights: torch.Tensor, biases: torch.Tensor | None) -> ctypes.Array[Matrix]:
        """A matrix of each expert, of ``(experts, outputs, inputs)``."""
        if not weights.is_contiguous():
            raise ValueError("the weights of experts do not lie by output")
        num, num_out, num_in = weights.shape
        bias = None if biases is None else self._wide(biases)
        found = (Matrix * num)()
        for at in range(num):
            # In the layout of whole numbers outputs are padded.
            steps = torch.zeros(num_out + MOST_FILLING)
            own = None if bias is None else bias + at * num_out * ctypes.sizeof(c_float)
            found[at] = Matrix(weights[at].data_ptr(), num_in, num_out, num_in, self._kept(steps), own, None, None)
            self._measure(found[at], steps, IN_EXPERTS)
        self._held.append(found)
        return found

    def _norm(self, name: str, weight: torch.Tensor) -> Norm:
        return Norm(self._wide(weight), self._shape.epsilons[NORMS.index(name)], self._shape.is_centered)

    def _matrix(
        self, tensors: list[torch.Tensor], form: Form, num_in: int, num_out: int, *, place: int = IN_LAYER
    ) -> Matrix:
        bias = self._wide(tensors[-1]) if form.has_bias else None
        if form.kind == "plain":
            steps = torch.zeros(num_out + MOST_FILLING)
            found = Matrix(tensors[0].data_ptr(), num_in, num_out, num_in, self._kept(steps), bias, None, None)
        elif form.kind == "int4":
            packed, steps = tensors[:2]
            width = steps.shape[0] * GROUP_SIZE
            found = Matrix(packed.data_ptr(), num_in, num_out, width, steps.data_ptr(), bias, None, None)
        else:
            codes, scales, *by_words = tensors[:4]
            columns, factors = (in_order(one) for one in by_words)
            steps, width = pad(scales.float(), (0, MOST_FILLING)), codes.shape[1] * CODES_PER_WORD
            placed = self._kept(steps), bias, self._kept(behind(columns, num_in)), self._kept(factors)
            found = Matrix(codes.data_ptr(), num_in, num_out, width, *placed)
        self._measure(found, steps, place)
        return found

    def _measure(self, matrix: Matrix, steps: torch.Tensor, place: int) -> None:
        self._code.measure(ctypes.addressof(matrix), steps.data_ptr(), torch.get_num_threads(), place)

    def _wide(self, tensor: torch.Tensor) -> int:
        return self._kept(tensor.float().contiguous())

    def _kept(self, tensor: torch.Tensor) -> int:
        self._held.append(tensor)
        return tensor.data_ptr()


def behind(columns: torch.Tensor, num_in: int) -> torch.Tensor:
    """Which inputs the columns behind the first ``num_in`` read; these read theirs in order."""
    if not torch.equal(columns[:num_in], torch.arange(num_in)):
        raise ValueError("codes do not begin with a column for each input in order")
    return columns[num_in:].contiguous()


def in_order(values: torch.Tensor) -> torch.Tensor:
    """A value of each code as the codes lie, from the order of bytes within words."""
    return values.view(CODES_PER_WORD, -1).t().reshape(-1).contiguous()
