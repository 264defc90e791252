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
from app.engine.checks.plain_cache import has_windows, window_room
from app.engine.checks.reference import TOLERANCE, distance, probe_tokens, tolerance_of
from app.engine.runners.compiled import runner_on
from app.engine.runners.mixed import MixedRunner, can_mix
from app.engine.runners.windowed import WindowedRunner, can_attend
from app.models.checkpoint.loader import load_checkpoint
from app.models.compiled.compiled_step import PROMPT_MEASURED, ROWS_MEASURED, CompiledStep, load_step, store_of
from app.models.compiled.inductor import ROWS, compile_step, compiler, require_compiler
from app.models.compiled.native_build import LIBRARY, compile_pass
from app.models.compiled.native_pass import NativePass, load_library
from app.models.compiled.package_facts import AnyShape, facts_of, key_of
from app.models.compiled.package_store import Package, PackageError
from app.models.compiled.steps.step_graph import Parts, parts_of
from app.models.encoders.encoder_code import compile_layers, layers_shape, states_of
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.native_encoder import EncoderShape, NativeEncoder, load_encoder_library
from app.models.encoders.seq2seq_model import Seq2SeqModel
from app.models.encoders.unpadded import is_unpadded, layers_of
from app.models.text_model import TextModel
from app.models.weights.fused.fused_layers import lay_for_code

# Texts of the passes of an encoder that are measured, by how many tokens they have together.
ENCODER_PASSES = {16: (16,), PROMPT_MEASURED: (32, 32, 32, 32)}
# Entries in the cache while steps are measured, and how many of them: rounds of an eager one and a compiled one.
NUM_ENTRIES, NUM_ROUNDS, NUM_ROUNDS_OF_MANY = 160, 12, 4


def make_package(settings: Settings, tell: Callable[[str], None]) -> Package:
    """Compile for the model of ``settings`` and keep the package; ``tell`` gets a line for each stage.

    Raises ``PackageError``, or ``StartError`` where the model cannot be loaded.
    """
    tell("loading the model")
    model = eager_model(settings)
    code: StepCode | LayersCode = LayersCode(model) if isinstance(model, EncoderModel) else StepCode(model, settings)
    tell("compiling")
    with TemporaryDirectory() as folder:
        started_s = time.monotonic()
        files = code.compile(Path(folder))
        made_s = time.monotonic() - started_s
        tell("comparing and measuring")
        facts = facts_of(code.shape)
        about = {"facts": facts, "made_s": round(made_s, 1), "model": model.name, **code.measure(files)}
        return store_of(settings).add(key_of(facts), files, about)


class StepCode:
    """Code for the steps or the passes of a model that generates. Raises ``PackageError`` where there is none."""

    def __init__(self, model: TextModel, settings: Settings):
        self._model, self._parts, self._is_rounded = model, compilable(model), bound_of(settings) is not None
        self._room = window_room(model, settings)

    @property
    def shape(self) -> AnyShape:
        return self._parts.shape

    def compile(self, folder: Path) -> dict[str, Path]:
        """The package's files by name. Raises ``PackageError``."""
        return compile_code(self._parts, folder)

    def measure(self, files: dict[str, Path]) -> dict[str, Any]:
        """What the package says of itself. Raises ``PackageError``."""
        return measured(self._model, self._parts, files, self._room, is_rounded=self._is_rounded)


class LayersCode:
    """Code for the layers of an encoder. Raises ``PackageError`` where there is none."""

    def __init__(self, model: EncoderModel):
        self._model = model
        shape = layers_shape(model.checkpoint.model)
        if isinstance(shape, str) or not is_unpadded(model.checkpoint.model):
            raise PackageError(f"the model has no layers to compile: {shape}")
        self.shape: EncoderShape = shape

    def compile(self, folder: Path) -> dict[str, Path]:
        """The package's files by name. Raises ``PackageError``."""
        require_compiler()
        return {LIBRARY: compile_layers(compiler(), folder)}

    def measure(self, files: dict[str, Path]) -> dict[str, Any]:
        """Milliseconds of an eager pass and of one on the code. Raises ``PackageError``."""
        layers = layers_of(self._model.checkpoint.model)
        native = NativeEncoder(load_encoder_library(files[LIBRARY]), layers, self.shape, {1: True})
        steps = {
            str(size): compared(
                [partial(states_of, self._model, self._rows(lengths), one) for one in (None, native)],
                size,
                TOLERANCE[torch.float32],
            )
            for size, lengths in ENCODER_PASSES.items()
        }
        eager_ms, compiled_ms = steps[str(PROMPT_MEASURED)]
        told = f"a pass of {PROMPT_MEASURED} tokens"
        return {"measured": told, "eager_ms": eager_ms, "compiled_ms": compiled_ms, "steps_ms": steps}

    def _rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Token ids of texts so long, as far as the model's context goes."""
        return [probe_tokens(self._model, min(length, self._model.context_tokens)) for length in lengths]


def compile_code(parts: Parts, folder: Path) -> dict[str, Path]:
    """The package's files by name: of whole passes where there is C++ for them, else of steps, which takes minutes."""
    require_compiler()
    library = compile_pass(parts.shape, compiler(), folder)
    return compile_step(parts) if library is None else {LIBRARY: library}


def eager_model(settings: Settings) -> TextModel | EncoderModel:
    """A model as it is served eagerly. Raises ``PackageError`` where there is nothing to compile."""
    # Without a package of an earlier time, for which its weights would lie otherwise.
    eager = settings.model_copy(update={"compile": "never"})
    model = model_of(load_checkpoint(eager, lambda _: None), eager)
    if isinstance(model, Seq2SeqModel):
        raise PackageError("models that make texts of others have no step to compile")
    for feature in [one for one in FEATURES if one.is_wanted(model, eager)]:
        feature.apply(model, eager)
    return model


def compilable(model: TextModel) -> Parts:
    """The parts of the model's step. Raises ``PackageError`` where there are none."""
    checkpoint = model.checkpoint
    lay_for_code(checkpoint)
    can_pass = can_attend(checkpoint) if has_windows(model) else can_mix(checkpoint)
    parts = parts_of(checkpoint, unpacks=True) if can_pass else "its attention cannot be replaced"
    if isinstance(parts, str):
        raise PackageError(f"the model has no step to compile: {parts}")
    return parts


@torch.inference_mode()
def measured(
    model: TextModel, parts: Parts, files: dict[str, Path], room: int | None = None, *, is_rounded: bool
) -> dict[str, Any]:
    """Milliseconds of an eager pass and of a compiled one, by number of tokens. Raises ``PackageError``.

    ``room``: of layers with windows, for tokens of a pass.
    """
    checkpoint = model.checkpoint
    tolerance = tolerance_of(checkpoint.dtype, is_rounded=is_rounded)
    if LIBRARY in files:
        sizes: tuple[int, ...] = (*ROWS_MEASURED, PROMPT_MEASURED)
        step: CompiledStep | NativePass = NativePass(
            load_library(files[LIBRARY]), checkpoint, parts, dict.fromkeys(sizes, True)
        )
    else:
        sizes = tuple(range(1, max(ROWS) + 1))
        with TemporaryDirectory() as folder:
            for name, path in files.items():
                (Path(folder) / name).symlink_to(path)
            step = load_step(Path(folder), parts, sizes)
    num_rows = max(size for size in sizes if size <= max(ROWS_MEASURED))
    sizes_of_rows = checkpoint, num_rows, model.context_tokens
    eager = MixedRunner(*sizes_of_rows) if room is None else WindowedRunner(*sizes_of_rows, most_new=room)
    runners = eager, runner_on(step, *sizes_of_rows, most_new=room)
    tokens = probe_tokens(model, min(NUM_ENTRIES, model.context_tokens - 1))
    runners[0].prefill(0, tokens, 0)
    for row in range(1, num_rows):
        runners[0].cache.copy_row(0, row, len(tokens))
    runners[1].take_over(runners[0])
    sizes = tuple(size for size in sizes if size <= len(tokens))
    steps = {str(size): compared([pass_of(one, tokens, size) for one in runners], size, tolerance) for size in sizes}
    eager_ms, compiled_ms = steps["1"]
    told = "a step of one sequence"
    return {"measured": told, "eager_ms": eager_ms, "compiled_ms": compiled_ms, "steps_ms": steps}


def pass_of(runner: MixedRunner, tokens: list[int], size: int) -> Callable[[], torch.Tensor]:
    """A pass of ``size`` tokens: of so many rows, or of a prompt where they are more."""
    if size > max(ROWS_MEASURED):
        return partial(runner.prefill, 0, tokens[:size], 0)
    fed, starts = [[token] for token in tokens[:size]], [len(tokens) - row for row in range(size)]
    return lambda: runner.decode(fed, starts)[:, 0]


def compared(runs: Sequence[Callable[[], torch.Tensor]], size: int, tolerance: float) -> tuple[float, float]:
    """What a pass of ``size`` tokens takes in each way. Raises ``PackageError`` where their logits differ."""
    expected, found = (run().float() for run in runs)
    share = float(distance(found, expected).max())
    if not share <= tolerance:
        raise PackageError(f"the compiled step differs by {share:.2g} of the range of the eager one's logits")
    num_rounds = NUM_ROUNDS if size <= max(ROWS) else NUM_ROUNDS_OF_MANY
    eager_ms, compiled_ms = (round(1000 * seconds, 3) for seconds in alternately(runs, num_rounds))
    return eager_ms, compiled_ms


def alternately(runs: Sequence[Callable[[], torch.Tensor]], num_rounds: int) -> list[float]:
    """Least seconds of each of ``runs``, which take turns: what else the machine does meets all of them."""
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(num_rounds):
        for run, seconds in zip(runs, taken, strict=True):
            started_s = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started_s)
    return [min(seconds) for seconds in taken]
