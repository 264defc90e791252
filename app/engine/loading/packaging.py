"""Makes a package: loads a model as a server would, compiles its step, compares it and measures what it saves.

For a process of its own, which has the cores to itself; knows no server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from app.core.settings import Settings
from app.engine.checks.features import FEATURES, bound_of
from app.engine.checks.ladder import model_of
from app.engine.checks.reference import TOLERANCE, distance, probe_tokens
from app.engine.checks.steps import ROUNDED_TOLERANCE
from app.engine.runners.compiled import CompiledRunner
from app.engine.runners.mixed import MixedRunner, can_mix
from app.models.checkpoint.loader import load_checkpoint
from app.models.compiled.compiled_step import load_step, store_of
from app.models.compiled.inductor import ROWS, compile_step
from app.models.compiled.package_facts import facts_of, key_of
from app.models.compiled.package_store import Package, PackageError
from app.models.compiled.step_graph import Parts, parts_of
from app.models.text_model import TextModel

# Entries in the cache while steps are measured, and how many of them: rounds of an eager one and a compiled one.
NUM_ENTRIES, NUM_ROUNDS = 160, 25


def make_package(settings: Settings, tell: Callable[[str], None]) -> Package:
    """Compile for the model of ``settings`` and keep the package; ``tell`` gets a line for each stage.

    Raises ``PackageError``, or ``StartError`` where the model cannot be loaded.
    """
    tell("loading the model")
    model, parts = compilable(settings)
    tell("compiling; a few minutes")
    started_s = time.monotonic()
    files = compile_step(parts)
    made_s = time.monotonic() - started_s
    tell("comparing and measuring")
    numbers = measured(model, parts, files, is_rounded=bound_of(settings) is not None)
    facts = facts_of(parts.shape)
    about = {"facts": facts, "made_s": round(made_s, 1), "model": model.name, **numbers}
    return store_of(settings).add(key_of(facts), files, about)


def compilable(settings: Settings) -> tuple[TextModel, Parts]:
    """A model as it is served eagerly, and the parts of its step. Raises ``PackageError`` where there are none."""
    # Without a package of an earlier time, for which its weights would lie otherwise.
    eager = settings.model_copy(update={"compile": "never"})
    checkpoint = load_checkpoint(eager, lambda _: None)
    model = model_of(checkpoint, eager)
    if not isinstance(model, TextModel):
        raise PackageError("only models that generate text have a step to compile")
    for feature in [one for one in FEATURES if one.is_wanted(model, eager)]:
        feature.apply(model, eager)
    parts = parts_of(checkpoint, unpacks=True) if can_mix(checkpoint) else "its attention cannot be replaced"
    if isinstance(parts, str):
        raise PackageError(f"the model has no step to compile: {parts}")
    return model, parts


@torch.inference_mode()
def measured(model: TextModel, parts: Parts, files: dict[str, Path], *, is_rounded: bool) -> dict[str, Any]:
    """Milliseconds of an eager step and of a compiled one, by number of rows. Raises ``PackageError``."""
    tokens = probe_tokens(model, min(NUM_ENTRIES, model.context_tokens - 1))
    numbers = range(1, max(ROWS) + 1)
    with TemporaryDirectory() as folder:
        for name, path in files.items():
            (Path(folder) / name).symlink_to(path)
        step = load_step(Path(folder), parts, numbers)
    runners = (
        MixedRunner(model.checkpoint, max(ROWS), model.context_tokens),
        CompiledRunner(step, model.checkpoint, max(ROWS), model.context_tokens),
    )
    for runner in runners:
        for row in range(max(ROWS)):
            runner.prefill(row, tokens[row:], 0)
    tolerance = ROUNDED_TOLERANCE if is_rounded else TOLERANCE[model.checkpoint.dtype]
    steps = {str(num_rows): compared(runners, tokens, num_rows, tolerance) for num_rows in numbers}
    eager_ms, compiled_ms = steps["1"]
    return {"eager_ms": eager_ms, "compiled_ms": compiled_ms, "steps_ms": steps}


def compared(runners: Sequence[MixedRunner], tokens: list[int], num_rows: int, tolerance: float) -> tuple[float, float]:
    """What a step of ``num_rows`` rows of unlike lengths takes on each. Raises ``PackageError`` where they differ."""
    fed, starts = [[token] for token in tokens[:num_rows]], [len(tokens) - row for row in range(num_rows)]
    runs = [partial(runner.decode, fed, starts) for runner in runners]
    expected, found = (run()[:, 0].float() for run in runs)
    share = float(distance(found, expected).max())
    if not share <= tolerance:
        raise PackageError(f"the compiled step differs by {share:.2g} of the range of the eager one's logits")
    eager_ms, compiled_ms = (round(1000 * seconds, 3) for seconds in alternately(runs))
    return eager_ms, compiled_ms


def alternately(runs: list[partial[torch.Tensor]]) -> list[float]:
    """Least seconds of each of ``runs``, which take turns: what else the machine does meets all of them."""
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(NUM_ROUNDS):
        for run, seconds in zip(runs, taken, strict=True):
            started_s = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started_s)
    return [min(seconds) for seconds in taken]
