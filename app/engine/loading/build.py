"""From settings to an engine that is ready to serve: load, check, reckon with memory.

Inference thread only. Everything that can go wrong is a ``StartError`` with one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.core.errors import ModelLoadError
from app.core.model_tables import Task
from app.core.settings import Settings
from app.core.states import EngineName
from app.engine.checks.features import Model
from app.engine.checks.ladder import Ladder
from app.engine.checks.steps import Engine
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.serial import SerialEngine
from app.engine.micro_batcher import MicroBatcher
from app.engine.runners.choose import make_runner
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.text_model import TextModel


@dataclass(frozen=True)
class KvMemory:
    """Memory of the KV cache: of one token, and when every slot is full."""

    bytes_per_token: int
    max_bytes: int


@dataclass(frozen=True)
class Prepared:
    """A warm model; ``kv_memory`` is None where there is no cache, or transformers manages it.

    ``engine_name`` is the way it is run, ``dropped`` what failed the check at the load and was left out, ``settings``
    the ones that hold without it; the check took ``check_s``.
    """

    model: Model
    generator: Engine
    kv_memory: KvMemory | None
    engine_name: EngineName
    dropped: tuple[str, ...]
    settings: Settings
    check_s: float

    @property
    def serial(self) -> SerialEngine | None:
        """The engine, where one of its steps is a whole request."""
        return self.generator if isinstance(self.generator, SerialEngine) else None

    def step(self, *, is_shared: bool) -> None:
        """One step of the engine; ``is_shared``: other models wait for it (a whole request looks after them itself)."""
        if isinstance(self.generator, BatchedEngine | MicroBatcher):
            self.generator.step(is_shared=is_shared)
        else:
            self.generator.step()

    @property
    def kv_growth_bytes(self) -> int:
        """What the KV cache has not taken yet, and will where every sequence grows as long as can be."""
        if self.kv_memory is None or not isinstance(self.generator, BatchedEngine):
            return 0
        return self.kv_memory.max_bytes - self.generator.runner.cache.num_bytes

    def rest(self, now_s: float) -> float | None:
        """Give memory back that was not needed for long; seconds until there may be more to give, or None."""
        return self.generator.rest(now_s) if isinstance(self.generator, BatchedEngine) else None


def prepare(
    settings: Settings,
    progress: Callable[[float], None],
    between_tokens: Callable[[], None],
    *,
    task: Task | None = None,
    promised_bytes: int = 0,
) -> Prepared:
    """Load what ``settings`` name. ``progress`` is told shares of 1. Raises ``StartError``.

    ``between_tokens`` is for the fallback, whose steps are long; ``task`` is what to load the model for
    (default: what its config says); ``promised_bytes`` are free, but kept for others.
    """

    def load(settings: Settings) -> Checkpoint:
        return load_checkpoint(settings, progress, task)

    chosen = Ladder(settings, load, between_tokens, promised_bytes).climb()
    memory = kv_memory(chosen.engine, chosen.model, promised_bytes)
    return Prepared(
        chosen.model,
        chosen.engine,
        memory,
        chosen.engine_name,
        chosen.dropped,
        chosen.settings,
        chosen.check_s,
    )


def make_slots(model: TextModel, settings: Settings) -> BatchedEngine:
    """The batched engine as the settings want it, unchecked."""
    runner = make_runner(settings.decode_runner, model.checkpoint, settings.max_batch_size, model.context_tokens)
    return BatchedEngine(model, BatchOptions.of(settings), runner)


def kv_memory(generator: Engine, model: Model, promised_bytes: int) -> KvMemory | None:
    """What the KV cache may take. Raises ``ModelLoadError`` where that cannot fit."""
    if not isinstance(generator, BatchedEngine):
        return None
    cache = generator.runner.cache
    free = max(free_bytes(model.checkpoint.device) + cache.num_bytes - promised_bytes, 0)
    if cache.max_bytes > free:
        raise ModelLoadError(
            f"the KV cache of {cache.num_rows} x {cache.max_tokens} tokens needs {cache.max_bytes / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free: lower FORKLIFT_MAX_BATCH_SIZE or FORKLIFT_MAX_CONTEXT_TOKENS"
        )
    return KvMemory(cache.bytes_per_token, cache.max_bytes)
