"""A package in use: steps of one row or a few, on the model's own weights and the cache's own buffers.

Inference thread only. What it computes is not checked here; a load compares it (docs/architecture.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from app.core.settings import Settings
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.inductor import ROWS, files_of, has_compiler
from app.models.compiled.native_build import LIBRARY, kinds_of
from app.models.compiled.native_pass import NativePass, load_library
from app.models.compiled.package_facts import AnyShape, difference, facts_of, key_of
from app.models.compiled.package_store import Package, PackageError, Store
from app.models.compiled.steps.step_graph import Parts, model_shape, parts_of
from app.models.compiled.steps.step_shape import Shape

# Of the eager step's time; less is not worth code of its own.
LEAST_GAIN = 0.05
# Sizes of a pass at which code for whole passes is measured: of so many rows, the last one of a prompt.
ROWS_MEASURED, PROMPT_MEASURED = (1, 2, 4, 8, 16), 128
MEASURED = {*range(1, max(ROWS) + 1), *ROWS_MEASURED, PROMPT_MEASURED}
KeysValues = tuple[torch.Tensor, torch.Tensor]


class Code(Protocol):
    """A compiled function of tensors, in the order of its inputs laid flat."""

    def run(self, inputs: list[torch.Tensor], /) -> list[torch.Tensor]: ...


@dataclass(frozen=True)
class RowsCode:
    """Code for the layers and the head, for a step of ``num_rows`` rows."""

    num_rows: int
    layers: Code
    head: Code


class CompiledStep:
    """Code for steps of some rows of a shape, on the weights of ``parts``, which have it; nothing is copied.

    ``codes`` are by how many rows decode together; the same code may serve several numbers.
    """

    # Whether it makes every pass faster than weights in a layout of their own do.
    is_for_all = False

    def __init__(self, codes: dict[int, RowsCode], parts: Parts):
        self._codes, self._parts = codes, parts
        self._entries = torch.arange(0)

    def rows_for(self, num_rows: int) -> int | None:
        """How many rows a step of ``num_rows`` has to be filled up to; None where there is no code for it."""
        code = self._codes.get(num_rows)
        return None if code is None else code.num_rows

    def run(
        self,
        states: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        positions: list[int],
        rows: list[int],
        cache: list[KeysValues],
    ) -> torch.Tensor:
        """Logits ``(num_rows, vocab)`` behind the tokens whose embeddings are ``states`` ``(num_rows, hidden)``.

        As many as ``rows_for`` says. ``cos`` and ``sin`` are ``(num_rows, head_dim)``. The keys and values of each
        layer, ``(cache rows, kv_heads, capacity, head_dim)`` in one piece, get each token's at its position in its row;
        one row needs a cache of that row alone.
        """
        code, last = self._codes[len(positions)], max(positions)
        if last >= len(self._entries):
            self._entries = torch.arange(2 * (last + 1))
        shared = [cos, sin, torch.tensor(positions), self._entries[: last + 1], torch.tensor(rows)]
        per_call = self._parts.shape.layers_per_call
        for first in range(0, self._parts.shape.num_layers, per_call):
            inputs = [states, *shared]
            for weights, kept in zip(
                self._parts.layers[first : first + per_call], cache[first : first + per_call], strict=True
            ):
                inputs += [*weights, *kept]
            [states] = code.layers.run(inputs)
        [logits] = code.head.run([states, *self._parts.head])
        return logits


def load_step(folder: Path, parts: Parts, numbers: Iterable[int]) -> CompiledStep:
    """The step in ``folder`` for those numbers of rows: it is run from now on. Raises ``RuntimeError``."""
    return CompiledStep(codes_of(numbers, lambda num_rows: load_code(folder, num_rows)), parts)


def load_code(folder: Path, num_rows: int) -> RowsCode:
    """The code for so many rows; it must be known who wrote it."""
    layers, head = (torch._C._aoti.AOTIModelContainerRunnerCpu(str(folder / name), 1) for name in files_of(num_rows))
    return RowsCode(num_rows, layers, head)


def codes_of(numbers: Iterable[int], load: Callable[[int], RowsCode]) -> dict[int, RowsCode]:
    """For each of ``numbers`` the code with the fewest rows that has enough."""
    wanted = {number: min(rows for rows in ROWS if rows >= number) for number in numbers}
    loaded = {num_rows: load(num_rows) for num_rows in sorted(set(wanted.values()))}
    # The filled-up rows decode under the number that they are filled up to.
    return {**loaded, **{number: loaded[rows] for number, rows in wanted.items()}}


def store_of(settings: Settings) -> Store:
    """The packages of these settings."""
    return Store(settings.cache_path, settings.cache_max_bytes)


def find_step(checkpoint: Checkpoint, settings: Settings) -> CompiledStep | NativePass | str:
    """The code of the package that fits a model whose layers are fused; or in words why none is used."""
    shape = model_shape(checkpoint)
    if isinstance(shape, str):
        return shape
    try:
        package = find_package(shape, store_of(settings))
        # Before the weights are looked at: they stay packed where it cannot be loaded, which is not the reason then.
        require_code(package)
        parts = parts_of(checkpoint)
        return parts if isinstance(parts, str) else load_package(package, checkpoint, parts)
    except PackageError as error:
        return str(error)
    except (RuntimeError, OSError, AttributeError) as error:
        return f"its package cannot be loaded: {(str(error).splitlines() or [''])[0]}"


def require_code(package: Package) -> None:
    """Raises ``OSError`` or ``AttributeError`` where the library of whole passes in ``package`` is none."""
    if LIBRARY in package.about["sums"]:
        load_library(package.path / LIBRARY)


def load_package(package: Package, checkpoint: Checkpoint, parts: Parts) -> CompiledStep | NativePass:
    """What ``package`` holds: code for whole passes, or for steps of a few rows. Raises what loading raises."""
    paying = gains(package.about)
    if LIBRARY not in package.about["sums"]:
        return load_step(package.path, parts, paying)
    pays = {number: number in paying for number in steps_in(package.about)}
    return NativePass(load_library(package.path / LIBRARY), checkpoint, parts, pays)


def may_lie_plain(shape: Shape, settings: Settings) -> bool:
    """Whether weights of ``shape`` may lie as compiled code reads them, once a package is there.

    Code for whole passes takes every number of tokens, that for steps of a few rows no more than it has code for. Codes
    of int8 only one then: prompts that are read beside rows take up to 1.8 times as long on codes that lie so.
    """
    return kinds_of(shape) is not None or not decodes_many(shape, settings)


def decodes_many(shape: Shape, settings: Settings) -> bool:
    """Whether steps are made that code for a few rows does not take, or only at the cost of prompts."""
    return settings.max_batch_size > (1 if shape.head_form.kind == "int8" else max(ROWS))


def has_better_code(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Whether a package is there that gains from weights of another layout being laid out as it reads them.

    Where many rows decode it has to gain at all sizes of a pass: those that are left to eager passes lose by it.
    """
    shape = model_shape(checkpoint)
    try:
        if isinstance(shape, str):
            return False
        about = find_package(shape, store_of(settings)).about
        is_for_all = LIBRARY in about["sums"] and set(gains(about)) == set(steps_in(about))
        return is_for_all or not decodes_many(shape, settings)
    except PackageError:
        return False


def is_missing(shape: AnyShape, settings: Settings) -> bool:
    """Whether no package at all, good or bad, lies where the one for ``shape`` would."""
    return not (store_of(settings).folder / key_of(facts_of(shape))).exists()


def rows_to_pack_for(shape: AnyShape | str, settings: Settings, num_rows: int) -> int:
    """For how many rows weights of that shape are laid out, where so many share a pass: one, if code may serve them.

    It is faster than eager passes on any layout, but for prompts on the one for many rows, and would have to gain at
    all sizes to change to it. With COMPILE=never, too: that is how a model is loaded to be compiled for. ``shape`` in
    words: why it has no code.
    """
    may_serve = not isinstance(shape, str) and (has_compiler() or not is_missing(shape, settings))
    return 1 if may_serve else num_rows


def find_package(shape: AnyShape, store: Store) -> Package:
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
    """Raises ``PackageError`` where no step was much faster than the eager one when it was made."""
    steps = steps_in(about)
    if not gains(about):
        told = ", ".join(f"{compiled:.1f} ms of {eager:.1f} ms eager" for eager, compiled in steps.values())
        raise PackageError(f"its package saves too little: a step took {told}")


def gains(about: dict[str, Any]) -> list[int]:
    """The numbers of tokens for which a pass saved enough of the eager one where it was made."""
    return [rows for rows, (eager, compiled) in steps_in(about).items() if compiled <= (1 - LEAST_GAIN) * eager]


def steps_in(about: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Milliseconds of an eager pass and of a compiled one, by number of tokens. Raises ``PackageError``."""
    try:
        found = {int(rows): (float(eager), float(compiled)) for rows, (eager, compiled) in about["steps_ms"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        found = {}
    is_sound = all(0 < ms < math.inf for pair in found.values() for ms in pair)
    if not found or not is_sound or not set(found) <= MEASURED:
        raise PackageError("its package does not say what it saves")
    return found
