"""What a layer's experts are made of, as data: how their weights lie, what their router gives, what they compute.

Read from the names of their parts, then compared with what the family's own module gives for random states. What is not
known here has no description, and stays that module. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import torch
from torch import nn

from app.core.logs.logging import get_logger

# Of the most that the family's module gives for a token, by dtype.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
NUM_USUAL, NUM_LARGE = 3, 2
# Gates of this size tell whether they are clamped: far beyond what any family lets through.
LARGE_GATE = 30.0
# The name for gates that are clamped, and turned by a sigmoid of a multiple of them (gpt-oss).
CLAMPED = "ClampedGate()"

log = get_logger("models")


@dataclass(frozen=True)
class Experts:
    """Gated products of which each token takes ``top_k`` by what a router gives it, added up by their shares.

    ``is_of_all``: a share is that of a softmax of all, else of those that were chosen. ``is_interleaved``: gates and
    what they are for lie in turn, else one half behind the other. ``is_transposed``: as the family names its
    dimensions. ``activation`` is a module's name, or ``CLAMPED`` with its ``slope`` and ``limit``.
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    activation: str
    is_of_all: bool
    is_interleaved: bool
    is_transposed: bool
    has_bias: bool
    has_router_bias: bool
    slope: float = 0.0
    limit: float = 0.0

    @property
    def num_tensors(self) -> int:
        """How many ``expert_tensors`` gives."""
        return 3 + self.has_router_bias + 2 * self.has_bias


@dataclass(frozen=True)
class ExpertWeights:
    """Of all experts, by output: ``gate_up`` ``(experts, 2 * intermediate, hidden)``, ``down`` the other way round.

    ``router`` is ``(experts, hidden)``; a bias has the weight's shape without the last dimension.
    """

    router: torch.Tensor
    router_bias: torch.Tensor | None
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None

    @classmethod
    def of(cls, tensors: list[torch.Tensor], experts: Experts) -> ExpertWeights:
        """From what ``expert_tensors`` gave."""
        rest = iter(tensors)
        router, router_bias = next(rest), next(rest) if experts.has_router_bias else None
        gate_up, gate_up_bias = next(rest), next(rest) if experts.has_bias else None
        return cls(router, router_bias, gate_up, gate_up_bias, next(rest), next(rest) if experts.has_bias else None)


def expert_tensors(mlp: nn.Module, experts: Experts) -> list[torch.Tensor]:
    """The weights of ``mlp`` as ``ExpertWeights`` takes them, where they lie."""
    router, parts = cast(Any, router_of(mlp)), cast(Any, mlp.experts)
    gate_up, down = parts.gate_up_proj, parts.down_proj
    if experts.is_transposed:
        gate_up, down = gate_up.transpose(1, 2), down.transpose(1, 2)
    biases = (parts.gate_up_proj_bias, parts.down_proj_bias) if experts.has_bias else (None, None)
    found = router.weight, router.bias if experts.has_router_bias else None, gate_up, biases[0], down, biases[1]
    return [one.detach() for one in found if one is not None]


def lay_by_output(mlp: nn.Module, experts: Experts) -> None:
    """Have the inputs of an output side by side, as code reads them; the module computes the same on them."""
    if not experts.is_transposed or all(one.is_contiguous() for one in expert_tensors(mlp, experts)):
        return
    for name in ("gate_up_proj", "down_proj"):
        weight = cast(Any, mlp.experts).get_parameter(name)
        weight.data = weight.data.transpose(1, 2).contiguous().transpose(1, 2)


@torch.inference_mode()
def known_experts(mlp: nn.Module) -> Experts | None:
    """What ``mlp`` computes; None where it is made of other parts, gives something else, or is not on a CPU."""
    router = router_of(mlp)
    if router is None or not has_known_parts(mlp, router):
        return None
    weight: torch.Tensor = cast(Any, router).weight
    if weight.device.type != "cpu" or weight.dtype not in TOLERANCES:
        return None
    try:
        return next((one for one in candidates(mlp, router) if agrees(mlp, one)), None)
    except Exception as error:
        # Called in another way, or of other sizes than their names say; the family's own stays.
        log.info("layer_not_compared", kind=type(mlp).__name__, reason=f"{type(error).__name__}: {error}"[:200])
        return None


def agrees(mlp: nn.Module, experts: Experts) -> bool:
    """Whether ``mlp`` computes what ``experts`` says."""
    states = probe_of(mlp, experts)
    if states is None:
        return False
    expected = given(mlp, states)
    if not bool(expected.isfinite().all()) or not bool(expected.any(dim=1).all()):
        return False
    bounds = TOLERANCES[states.dtype] * expected.abs().amax(dim=1, keepdim=True)
    return bool(((fed(states, mlp, experts) - expected).abs() <= bounds).all())


def probe_of(mlp: nn.Module, experts: Experts) -> torch.Tensor | None:
    """States ``(tokens, hidden)``: usual ones, which shares show in, and some that send gates far up and down.

    Few, since each of their experts is computed in float32. None where nothing becomes of them.
    """
    weights = ExpertWeights.of(expert_tensors(mlp, experts), experts)
    usual = torch.randn((NUM_USUAL, weights.router.shape[1]), generator=torch.Generator().manual_seed(0))
    gates = float((usual.to(weights.gate_up.dtype) @ weights.gate_up[0].T).abs().max())
    if not gates:
        return None
    return torch.cat((usual, usual[:NUM_LARGE] * (LARGE_GATE / gates))).to(weights.gate_up.dtype)


def given(mlp: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """What the module makes of ``(tokens, hidden)``, in float32; some give more behind it."""
    found = mlp(states[None])
    return cast(torch.Tensor, found[0] if isinstance(found, tuple) else found).float().view(states.shape)


def router_of(mlp: nn.Module) -> nn.Module | None:
    """The part that chooses, where ``mlp`` is that and experts."""
    parts = dict(mlp.named_children())
    experts = parts.pop("experts", None)
    return None if experts is None or len(parts) != 1 else next(iter(parts.values()))


def has_known_parts(mlp: nn.Module, router: nn.Module) -> bool:
    """Whether the names of all weights are those that are known here, and nothing else is kept."""
    experts = cast(nn.Module, mlp.experts)
    weights, of_router = (dict(part.named_parameters()) for part in (experts, router))
    own = [*mlp.named_parameters(recurse=False), *mlp.named_buffers()]
    names = {"gate_up_proj", "down_proj"}
    are_known = set(weights) in (names, names | {f"{name}_bias" for name in names})
    if own or not are_known or set(of_router) not in ({"weight"}, {"weight", "bias"}):
        return False
    if len({weight.dtype for weight in (*weights.values(), *of_router.values())}) != 1:
        return False
    return of_router["weight"].ndim == 2 and all(weights[name].ndim == 3 for name in names)


def candidates(mlp: nn.Module, router: nn.Module) -> Iterator[Experts]:
    """All that parts of these names may be meant for."""
    experts, top_k = cast(Any, mlp.experts), getattr(router, "top_k", getattr(mlp, "top_k", None))
    activation, slope, limit = gate_activation(experts)
    if not isinstance(top_k, int) or activation is None:
        return
    is_transposed = bool(getattr(experts, "is_transposed", False))
    num_experts, size = experts.gate_up_proj.shape[0], experts.down_proj.shape[1 if is_transposed else 2]
    # What the family says of itself first, since each takes some computing.
    orders = (False, True) if getattr(experts, "is_concatenated", True) else (True, False)
    for is_interleaved, is_of_all in product(orders, (False, True)):
        yield Experts(
            num_experts=num_experts,
            top_k=min(top_k, num_experts),
            intermediate_size=size,
            activation=activation,
            is_of_all=is_of_all,
            is_interleaved=is_interleaved,
            is_transposed=is_transposed,
            has_bias=hasattr(experts, "gate_up_proj_bias"),
            has_router_bias=getattr(router, "bias", None) is not None,
            slope=slope,
            limit=limit,
        )


def gate_activation(experts: Any) -> tuple[str | None, float, float]:
    """The name of what activates a gate, slope and limit; no name where there is none that is known."""
    act_fn = getattr(experts, "act_fn", None)
    if isinstance(act_fn, nn.Module):
        return repr(act_fn), 0.0, 0.0
    slope, limit = getattr(experts, "alpha", None), getattr(experts, "limit", None)
    if isinstance(slope, int | float) and isinstance(limit, int | float) and limit > 0:
        return CLAMPED, float(slope), float(limit)
    return None, 0.0, 0.0


def fed(states: torch.Tensor, mlp: nn.Module, experts: Experts) -> torch.Tensor:
    """What ``experts`` make of ``(tokens, hidden)``, in float32."""
    weights = ExpertWeights.of(expert_tensors(mlp, experts), experts)
    logits = nn.functional.linear(states, weights.router, weights.router_bias).float()
    chosen = logits.topk(experts.top_k, dim=-1)
    shares = logits.softmax(dim=-1).gather(1, chosen.indices) if experts.is_of_all else chosen.values.softmax(dim=-1)
    found = torch.zeros_like(states, dtype=torch.float32)
    # Expert by expert, since one of them may be large.
    for one in sorted({one for row in chosen.indices.tolist() for one in row}):
        tokens, places = torch.where(chosen.indices == one)
        both = biased(states[tokens].float() @ weights.gate_up[one].float().T, weights.gate_up_bias, one)
        gate, up = (both[:, ::2], both[:, 1::2]) if experts.is_interleaved else both.chunk(2, dim=-1)
        taken = biased(activated(gate, up, mlp, experts) @ weights.down[one].float().T, weights.down_bias, one)
        found.index_add_(0, tokens, taken * shares[tokens, places, None])
    return found


def biased(rows: torch.Tensor, biases: torch.Tensor | None, one: int) -> torch.Tensor:
    return rows if biases is None else rows + biases[one].float()


def activated(gate: torch.Tensor, up: torch.Tensor, mlp: nn.Module, experts: Experts) -> torch.Tensor:
    if experts.activation != CLAMPED:
        found: torch.Tensor = cast(Any, mlp.experts).act_fn(gate) * up
        return found
    gate, up = gate.clamp(max=experts.limit), up.clamp(-experts.limit, experts.limit)
    return gate * torch.sigmoid(experts.slope * gate) * (up + 1)
