"""A package in use: one step of one row, on the model's own weights and the cache's own buffers.

Inference thread only. What it computes is not checked here; a load compares it (docs/architecture.md).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import torch

from app.core.settings import Settings
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.inductor import FILES
from app.models.compiled.package_facts import difference, facts_of, key_of
from app.models.compiled.package_store import Package, PackageError, Store
from app.models.compiled.step_graph import Parts, Shape, model_shape, parts_of

# Of the eager step's time; less is not worth code of its own.
LEAST_GAIN = 0.05
KeysValues = tuple[torch.Tensor, torch.Tensor]


class Code(Protocol):
    """A compiled function of tensors, in the order of its inputs laid flat."""

    def run(self, inputs: list[torch.Tensor], /) -> list[torch.Tensor]: ...


class CompiledStep:
    """Code for the layers and the head of a shape, on the weights of ``parts``, which have it; nothing is copied."""

    def __init__(self, layers: Code, head: Code, parts: Parts):
        self._layers, self._head, self._parts = layers, head, parts
        self._entries = torch.arange(0)

    def run(
        self, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, position: int, cache: list[KeysValues]
    ) -> torch.Tensor:
        """Logits ``(1, vocab)`` behind the token whose embedding is ``states`` ``(1, hidden)``.

        ``cos`` and ``sin`` are ``(1, head_dim)``. The keys and values of each layer, ``(1, kv_heads, capacity,
        head_dim)`` in one piece, get the token's at ``position`` and are attended to up to there.
        """
        if position >= len(self._entries):
            self._entries = torch.arange(2 * (position + 1))
        shared = [cos, sin, torch.tensor([position]), self._entries[: position + 1]]
        per_call = self._parts.shape.layers_per_call
        for first in range(0, self._parts.shape.num_layers, per_call):
            inputs = [states, *shared]
            for weights, kept in zip(
                self._parts.layers[first : first + per_call], cache[first : first + per_call], strict=True
            ):
                inputs += [*weights, *kept]
            [states] = self._layers.run(inputs)
        [logits] = self._head.run([states, *self._parts.head])
        return logits


def load_step(folder: Path, parts: Parts) -> CompiledStep:
    """The step in ``folder``, which is run from now on: it must be known who wrote it. Raises ``RuntimeError``."""
    layers, head = (torch._C._aoti.AOTIModelContainerRunnerCpu(str(folder / name), 1) for name in FILES.values())
    return CompiledStep(layers, head, parts)


def store_of(settings: Settings) -> Store:
    """The packages of these settings."""
    return Store(settings.cache_path, settings.cache_max_bytes)


def find_step(checkpoint: Checkpoint, settings: Settings) -> CompiledStep | str:
    """The step of the package that fits a model whose layers are fused; or in words why none is used."""
    shape = model_shape(checkpoint)
    if isinstance(shape, str):
        return shape
    try:
        package = find_package(shape, store_of(settings))
        parts = parts_of(checkpoint)
        return parts if isinstance(parts, str) else load_step(package.path, parts)
    except PackageError as error:
        return str(error)
    except RuntimeError as error:
        return f"its package cannot be loaded: {(str(error).splitlines() or [''])[0]}"


def is_missing(shape: Shape, settings: Settings) -> bool:
    """Whether no package at all, good or bad, lies where the one for ``shape`` would."""
    return not (store_of(settings).folder / key_of(facts_of(shape))).exists()


def find_package(shape: Shape, store: Store) -> Package:
    """The package for ``shape``, this machine and these versions. Raises ``PackageError`` with the reason."""
    facts = facts_of(shape)
    package = store.open(key_of(facts))
    if package is None:
        raise PackageError(why_none(facts["shape"], facts, store))
    if package.about.get("facts") != facts:
        raise PackageError(f"the package {package.path} is not what its name says")
    require_gain(package.about)
    return package


def why_none(shape: str, facts: dict[str, str], store: Store) -> str:
    """Whether there is a package for the same shape, and what it was made for."""
    made_for = [package.about.get("facts") for package in store.packages()]
    others = [found for found in made_for if isinstance(found, dict) and found.get("shape") == shape]
    if others:
        return f"its package was made for {difference(others[0], facts)}; `forklift compile` makes another"
    return f"there is no package for a model of its shape in {store.folder}; `forklift compile` makes one"


def require_gain(about: dict[str, Any]) -> None:
    """Raises ``PackageError`` where the step was hardly faster than the eager one when it was made."""
    eager_ms, compiled_ms = about.get("eager_ms"), about.get("compiled_ms")
    if not isinstance(eager_ms, float) or not isinstance(compiled_ms, float) or not 0 < compiled_ms < math.inf:
        raise PackageError("its package does not say what it saves")
    if compiled_ms > (1 - LEAST_GAIN) * eager_ms:
        raise PackageError(f"its package saves too little: a step took {compiled_ms:.1f} ms of {eager_ms:.1f} ms eager")
