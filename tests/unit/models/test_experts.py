"""What is found out about experts is what their family's module computes; of what computes more nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from app.core.settings import load_settings
from app.engine.checks.features import fuse
from app.engine.checks.ladder import model_of
from app.models.checkpoint.loader import load_checkpoint
from app.models.weights.fused.experts import (
    CLAMPED,
    Experts,
    ExpertWeights,
    expert_tensors,
    known_experts,
    lay_by_output,
)
from tests.unit.models.test_fused_layers import EXPERTS, WINDOWS, of_family

SILU = "SiLUActivation()"
KNOWN: dict[str, tuple[str, dict[str, object], Experts]] = {
    "gpt-oss": (
        "gpt_oss",
        {**EXPERTS, **WINDOWS},
        Experts(4, 2, 96, CLAMPED, False, True, True, True, True, slope=1.702, limit=7.0),
    ),
    "mixtral": ("mixtral", EXPERTS, Experts(4, 2, 96, SILU, False, False, False, False, False)),
    "qwen3-moe": ("qwen3_moe", EXPERTS, Experts(4, 2, 32, SILU, True, False, False, False, False)),
    "qwen3-moe, shares of those taken": (
        "qwen3_moe",
        {**EXPERTS, "norm_topk_prob": True},
        Experts(4, 2, 32, SILU, False, False, False, False, False),
    ),
    "olmoe": ("olmoe", EXPERTS, Experts(4, 2, 96, SILU, True, False, False, False, False)),
}


def mlp_of(family: str, dtype: torch.dtype = torch.float32, **changes: object) -> nn.Module:
    mlp: nn.Module = of_family(family, dtype, **changes).model.base_model.layers[1].mlp
    return mlp


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", KNOWN)
def test_experts_are_told_by_what_they_compute(name, dtype):
    family, changes, expected = KNOWN[name]
    assert known_experts(mlp_of(family, dtype, **changes)) == expected


@torch.inference_mode()
@pytest.mark.parametrize("name", KNOWN)
def test_weights_that_lie_by_output_are_the_same_ones(name):
    family, changes, experts = KNOWN[name]
    mlp = mlp_of(family, **changes)
    states = torch.randn((1, 9, 64))
    expected, before = mlp(states), [weight.clone() for weight in mlp.parameters()]
    lay_by_output(mlp, experts)
    weights = ExpertWeights.of(expert_tensors(mlp, experts), experts)
    assert weights.gate_up.shape == (4, 2 * experts.intermediate_size, 64)
    assert weights.down.shape == (4, 64, experts.intermediate_size)
    assert weights.gate_up.is_contiguous()
    assert weights.down.is_contiguous()
    assert all(map(torch.equal, mlp.parameters(), before))
    for found, wanted in zip(mlp(states), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("family", ["glm4_moe", "qwen2_moe", "minimax_m2"])
def test_routers_of_other_kinds_and_shared_experts_are_not_known(family):
    assert known_experts(mlp_of(family, **EXPERTS, first_k_dense_replace=1)) is None


def test_experts_that_compute_something_else_are_not_known(monkeypatch):
    def clamped(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.clamp(max=9.0).chunk(2, dim=-1)
        return self.act_fn(gate) * up

    mlp = mlp_of("mixtral", **EXPERTS)
    assert known_experts(mlp) is not None
    monkeypatch.setattr(type(mlp.experts), "_apply_gate", clamped)
    assert known_experts(mlp) is None


def test_a_router_that_gives_other_shares_is_not_known(monkeypatch):
    def doubled(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = linear(states, self.weight, self.bias)
        values, indices = logits.topk(self.top_k, dim=-1)
        return logits, 2 * values.softmax(dim=-1), indices

    mlp = mlp_of("gpt_oss", **EXPERTS, **WINDOWS)
    monkeypatch.setattr(type(mlp.router), "forward", doubled)
    assert known_experts(mlp) is None


def test_experts_that_give_nothing_are_not_known():
    mlp = mlp_of("mixtral", **EXPERTS)
    mlp.experts.down_proj.zero_()
    assert known_experts(mlp) is None


def test_experts_that_are_called_in_another_way_are_not_known(monkeypatch):
    mlp = mlp_of("mixtral", **EXPERTS)
    monkeypatch.setattr(type(mlp), "forward", lambda self, states, positions: states)
    assert known_experts(mlp) is None


def test_experts_of_other_sizes_than_their_names_say_are_not_known():
    mlp = mlp_of("mixtral", **EXPERTS)
    mlp.experts.gate_up_proj = nn.Parameter(torch.randn(4, 2 * 96, 48), requires_grad=False)
    assert known_experts(mlp) is None


@pytest.mark.parametrize(("wanted", "is_laid"), [("never", False), ("auto", True)])
def test_weights_are_moved_only_where_code_may_come_to_read_them(model_folder, wanted, is_laid):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("gpt_oss")), "FORKLIFT_COMPILE": wanted})
    model = model_of(load_checkpoint(settings, lambda _: None), settings)
    fuse(model, settings)
    layer = model.checkpoint.model.base_model.layers[0]
    assert [one.is_contiguous() for one in expert_tensors(layer.mlp, layer.pattern.experts)] == [
        True,
        True,
        *[is_laid, True] * 2,
    ]


def test_tensors_are_taken_in_the_order_they_are_given_in():
    experts = replace(KNOWN["mixtral"][2], has_bias=True, has_router_bias=True)
    names = ("router", "router_bias", "gate_up", "gate_up_bias", "down", "down_bias")
    tensors = [torch.tensor(float(at)) for at in range(experts.num_tensors)]
    weights = ExpertWeights.of(tensors, experts)
    assert [float(getattr(weights, name)) for name in names] == [0, 1, 2, 3, 4, 5]
