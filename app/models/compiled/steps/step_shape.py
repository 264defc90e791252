"""What the code of a compiled step or pass depends on, and the parts of a layer in the order that it takes them in.

Inference thread only, or a process that compiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch

from app.models.compiled.products import Form, num_tensors
from app.models.weights.fused.layer_patterns import LLAMA, Pattern

MAX_LAYERS_PER_CALL = 5
WEIGHTS = ("input_layernorm", "qkv_proj", "o_proj", "post_attention_layernorm", "gate_up_proj", "down_proj")
PRODUCTS = tuple(name for name in WEIGHTS if name.endswith("_proj"))
# Those that layers with experts have none of.
GATED = ("gate_up_proj", "down_proj")
# What layers of other kinds have beside; the norms, and the last one's epsilon between those of Llama's kind and these.
MORE = ("after_attention_norm", "after_mlp_norm", "q_norm", "k_norm", "sinks", "experts")
NORMS = ("input_layernorm", "post_attention_layernorm", "norm", *MORE[:4])


@dataclass(frozen=True)
class Shape:
    """All that the code of a step depends on, of a model whose layers are alike.

    ``is_centered``: its norms take off a mean before.
    """

    num_layers: int
    hidden_size: int
    num_queries: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    activation: str
    scaling: float
    epsilons: tuple[float, ...]
    forms: tuple[Form, ...]
    head_form: Form
    dtype: str
    pattern: Pattern = LLAMA
    is_centered: bool = False

    def has(self, name: str) -> bool:
        """Whether layers have the part of that name of ``WEIGHTS`` or ``MORE``."""
        norms, has_heads = self.pattern.norms, self.pattern.has_head_norms
        known = {
            "input_layernorm": norms.before_attention is not None,
            "post_attention_layernorm": norms.before_mlp is not None,
            "after_attention_norm": norms.after_attention is not None,
            "after_mlp_norm": norms.after_mlp is not None,
            **{"q_norm": has_heads, "k_norm": has_heads, "sinks": self.pattern.has_sinks},
            **dict.fromkeys(GATED, self.pattern.has_gate),
            "experts": not self.pattern.has_gate,
        }
        return known.get(name, True)

    @property
    def products(self) -> list[str]:
        """The names of the linear parts of a layer."""
        return [name for name in PRODUCTS if self.has(name)]

    @property
    def is_llamas(self) -> bool:
        """Whether layers are of Llama's kind, which code for a few rows is written for."""
        return self.pattern == LLAMA and not self.is_centered

    def form(self, name: str) -> Form:
        """Of the weight of that name in a layer."""
        return self.forms[self.products.index(name)]

    def num_out(self, name: str) -> int:
        """Outputs of the product of that name."""
        heads = (self.num_queries + 2 * self.num_kv_heads) * self.head_dim
        return {"qkv_proj": heads, "gate_up_proj": 2 * self.intermediate_size}.get(name, self.hidden_size)

    @property
    def layers_per_call(self) -> int:
        """The largest number up to ``MAX_LAYERS_PER_CALL`` that divides the layers."""
        return max(n for n in range(1, MAX_LAYERS_PER_CALL + 1) if self.num_layers % n == 0)


def parts_in(weights: list[torch.Tensor], shape: Shape) -> dict[str, list[torch.Tensor]]:
    """The tensors of each part of a layer, by its name."""
    rest = iter(weights)
    numbers = {name: num_tensors(shape.form(name)) if name in PRODUCTS else 1 for name in names_in(shape)}
    if shape.pattern.experts is not None:
        numbers["experts"] = shape.pattern.experts.num_tensors
    return {name: list(islice(rest, number)) for name, number in numbers.items()}


def names_in(shape: Shape) -> list[str]:
    """The parts that a layer has, in their order."""
    return [name for name in (*WEIGHTS, *MORE) if shape.has(name)]
