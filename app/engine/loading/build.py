"""From settings to an engine that is ready to serve: load, check, reckon with memory.

Inference thread only. Everything that can go wrong is a ``StartError`` with one line.
"""

from __future__ import annotations

from collections.abc import Callable

from app.core.errors import ModelLoadError
from app.core.settings import Settings
from app.core.tasks.task_table import Task
from app.engine.checks.features import Model
from app.engine.checks.ladder import Chosen, Ladder
from app.engine.checks.steps import steps_of
from app.engine.engine_interface import Engine
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.serial import SerialEngine
from app.engine.loading.prepared import KvMemory, Prepared
from app.engine.runners.choose import compiling_of, kinds_of, make_runner
from app.engine.runners.compiled import is_compiled
from app.engine.runners.mixed import can_mix
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.checkpoint.prequantized.served_form import served_settings
from app.models.encoders.encoder_code import has_native_layers
from app.models.encoders.encoder_model import EncoderModel
from app.models.text_model import TextModel
from app.models.weights.adapters.adapter_bank import AdapterBank


def prepare(
    settings: Settings,
    progress: Callable[[float], None],
    *,
    task: Task | None = None,
    promised_bytes: int = 0,
) -> Prepared:
    """Load what ``settings`` name. ``progress`` is told shares of 1. Raises ``StartError``.

    ``task`` is what to load the model for (default: what its config says); ``promised_bytes`` are free, but kept for
    others.
    """

    def load(settings: Settings) -> Checkpoint:
        return load_checkpoint(settings, progress, task)

    settings = served_settings(settings)
    chosen = Ladder(settings, load, steps_of, promised_bytes).climb()
    if settings.adapters is not None:
        add_adapters(chosen.model, chosen.engine, settings)
    memory = kv_memory(chosen.engine, chosen.model, promised_bytes)
    return Prepared(
        chosen.model,
        chosen.engine,
        memory,
        chosen.engine_name,
        chosen.dropped,
        settings_of(chosen),
        chosen.check_s,
        is_compiled=runs_compiled(chosen.model, chosen.engine),
        graphs=chosen.engine.runner.graphs if isinstance(chosen.engine, BatchedEngine) else None,
    )


def settings_of(chosen: Chosen) -> Settings:
    """The settings that hold: states of layers cannot be taken back, so nothing is guessed there."""
    has_states = isinstance(chosen.engine, BatchedEngine) and chosen.engine.runner.num_snapshots is not None
    return chosen.settings.model_copy(update={"prompt_lookup": 0}) if has_states else chosen.settings


def runs_compiled(model: Model, engine: Engine) -> bool:
    """Whether passes, or some of them, are compiled code."""
    if isinstance(model, EncoderModel):
        return has_native_layers(model.checkpoint.model)
    return isinstance(engine, BatchedEngine) and is_compiled(engine.runner)


def add_adapters(model: Model, engine: Engine, settings: Settings) -> None:
    """Let requests bring adapters along. Raises ``ModelLoadError`` for models that take none."""
    if not isinstance(model, TextModel) or not isinstance(engine, BatchedEngine | SerialEngine):
        raise ModelLoadError(f"FORKLIFT_ADAPTERS: the model {settings.model} does not generate, and takes no adapters")
    bank = AdapterBank(model.checkpoint, settings.adapters_max_bytes)
    engine.use_adapters(bank)
    model.adapters = bank.store


def make_slots(model: TextModel, settings: Settings) -> BatchedEngine:
    """The batched engine as the settings want it, unchecked."""
    kinds = kinds_of(settings, model.checkpoint.device)
    kind = next(one for one in kinds if one != "paged" or can_mix(model.checkpoint))
    compiling = compiling_of(settings, model.checkpoint.device)
    runner = make_runner(kind, model.checkpoint, settings.max_batch_size, model.context_tokens, compiling)
    return BatchedEngine(model, BatchOptions.of(settings, model.checkpoint.device), runner)


def kv_memory(engine: Engine, model: Model, promised_bytes: int) -> KvMemory | None:
    """What the KV cache may take. Raises ``ModelLoadError`` where that cannot fit."""
    cache = engine.cache
    if cache is None:
        return None
    free = max(free_bytes(model.checkpoint.device) + cache.num_bytes - promised_bytes, 0)
    if cache.max_bytes > free:
        raise ModelLoadError(
            f"the KV cache of {cache.num_rows} x {cache.max_tokens} tokens needs {cache.max_bytes / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free: lower FORKLIFT_MAX_BATCH_SIZE or FORKLIFT_MAX_CONTEXT_TOKENS"
        )
    return KvMemory(cache.bytes_per_token, cache.max_bytes)
