"""From settings to an engine that is ready to serve: load, check, quantise, warm up.

Inference thread only. Everything that can go wrong is a ``StartError`` with one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from app.core.encoding import EncoderJob
from app.core.errors import ModelLoadError, RequestError
from app.core.jobs import BaseJob, Failed, Job, SamplingParams
from app.core.logging import get_logger
from app.core.model_tables import Task
from app.core.settings import Settings
from app.engine.encoders import EncoderBatcher
from app.engine.fallback import GenerateGenerator
from app.engine.generation import SlotGenerator
from app.engine.guard import Guard
from app.engine.ragged import can_mix
from app.engine.self_check import can_use_slots
from app.engine.slot_options import SlotOptions
from app.models.encoder_model import EncoderModel
from app.models.fused_layers import fuse_layers
from app.models.loader import Checkpoint, load_checkpoint
from app.models.memory import free_bytes
from app.models.packing import owns_weights, pack, wants_packing
from app.models.quantization import model_bytes, quantize
from app.models.text_model import TextModel

Model: TypeAlias = TextModel | EncoderModel

log = get_logger("engine")


class Engine(Protocol):
    """What the inference thread drives: jobs go in, ``step`` brings them forward.

    ``add`` takes the jobs of the model's own task: the HTTP room makes no others.
    """

    guard: Guard

    @property
    def has_work(self) -> bool: ...
    def add(self, job: Any) -> None: ...
    def step(self) -> None: ...
    def fail_waiting(self, error: RequestError) -> None: ...
    def fail_all(self, error: RequestError) -> None: ...


@dataclass(frozen=True)
class KvMemory:
    """Memory of the KV cache: of one token, and when every slot is full."""

    bytes_per_token: int
    max_bytes: int


@dataclass(frozen=True)
class Prepared:
    """A warm model; ``kv_memory`` is None where there is no cache, or transformers manages it."""

    model: Model
    generator: Engine
    kv_memory: KvMemory | None

    @property
    def serial(self) -> GenerateGenerator | None:
        """The engine, where one of its steps is a whole request."""
        return self.generator if isinstance(self.generator, GenerateGenerator) else None

    @property
    def kv_growth_bytes(self) -> int:
        """What the KV cache has not taken yet, and will where every sequence grows as long as can be."""
        if self.kv_memory is None or not isinstance(self.generator, SlotGenerator):
            return 0
        return self.kv_memory.max_bytes - self.generator.runner.cache.num_bytes

    def rest(self, now_s: float) -> float | None:
        """Give memory back that was not needed for long; seconds until there may be more to give, or None."""
        return self.generator.rest(now_s) if isinstance(self.generator, SlotGenerator) else None


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
    checkpoint = load_checkpoint(settings, progress, task)
    if checkpoint.task == "generate":
        return prepare_text(checkpoint, settings, progress, between_tokens, promised_bytes)
    return prepare_encoder(checkpoint, settings)


def prepare_text(
    checkpoint: Checkpoint,
    settings: Settings,
    progress: Callable[[float], None],
    between_tokens: Callable[[], None],
    promised_bytes: int = 0,
) -> Prepared:
    """A language model on slots, or on ``generate`` where they do not fit it."""
    model = TextModel(settings.model_name, checkpoint, settings.max_context_tokens, settings.chat_template)
    has_slots = can_use_slots(model)
    # Merged weights belong to this process.
    if has_slots and owns_weights(checkpoint, settings):
        fuse_layers(checkpoint)
    # Asked before quantisation, which rounds by the range of all that shares a pass.
    mixes = has_slots and can_mix(checkpoint)
    progress(0.9)
    if settings.quantization != "none":
        quantize_and_tell(model, settings)
    elif wants_packing(checkpoint, settings):
        pack(checkpoint)
    generator = make_slots(model, settings, mixes=mixes) if has_slots else GenerateGenerator(model, between_tokens)
    num_prompt = max(min(8, model.context_tokens - 1), 1)
    num_new = min(4, model.context_tokens - num_prompt)
    warm_up(generator, model, Job("warm-up", [1] * num_prompt, SamplingParams(num_new, ignore_eos=True)))
    return Prepared(model, generator, kv_memory(generator, model, promised_bytes))


def prepare_encoder(checkpoint: Checkpoint, settings: Settings) -> Prepared:
    """An encoder on the micro-batcher; there is no cache to check or to reckon with."""
    model = EncoderModel(settings.model_name, checkpoint, settings.max_context_tokens)
    if settings.quantization != "none":
        quantize_and_tell(model, settings)
    elif wants_packing(checkpoint, settings):
        pack(checkpoint)
    batcher = EncoderBatcher(model)
    warm_up(batcher, model, EncoderJob("warm-up", [model.mask_id or 1], top_k=1))
    return Prepared(model, batcher, None)


def make_slots(model: TextModel, settings: Settings, *, mixes: bool | None = None) -> SlotGenerator:
    """The slot engine as the settings want it; ``mixes`` is what ``can_mix`` said, None: not asked yet."""
    return SlotGenerator(model, SlotOptions.of(settings), mixes=mixes)


def quantize_and_tell(model: Model, settings: Settings) -> None:
    """Quantise in place and say what it saved."""
    before = model_bytes(model.checkpoint.model)
    quantize(model.checkpoint, settings.quantization, settings.max_batch_size)
    after = model_bytes(model.checkpoint.model)
    log.info("quantized", model=model.name, to=settings.quantization, bytes_before=before, bytes_after=after)


def warm_up(generator: Engine, model: Model, job: BaseJob) -> None:
    """Work a small job off, so that the first request does not pay for lazy set-up."""
    generator.add(job)
    while generator.has_work:
        generator.step()
    if isinstance(job.next_events(0)[-1], Failed):
        raise ModelLoadError(f"the model {model.name} does not run: see the log above")


def kv_memory(generator: Engine, model: TextModel, promised_bytes: int) -> KvMemory | None:
    """What the KV cache may take. Raises ``ModelLoadError`` where that cannot fit."""
    if not isinstance(generator, SlotGenerator):
        return None
    cache = generator.runner.cache
    free = max(free_bytes(model.checkpoint.device) + cache.num_bytes - promised_bytes, 0)
    if cache.max_bytes > free:
        raise ModelLoadError(
            f"the KV cache of {cache.num_slots} x {cache.max_tokens} tokens needs {cache.max_bytes / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free: lower FORKLIFT_MAX_BATCH_SIZE or FORKLIFT_MAX_CONTEXT_TOKENS"
        )
    return KvMemory(cache.bytes_per_token, cache.max_bytes)
