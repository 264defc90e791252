"""From settings to a generator that is ready to serve: load, check, quantise, warm up.

Inference thread only. Everything that can go wrong is a ``StartError`` with one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from app.core.errors import ModelLoadError
from app.core.jobs import Failed, Job, SamplingParams
from app.core.logging import get_logger
from app.core.settings import Settings
from app.engine.fallback import GenerateGenerator
from app.engine.generation import SlotGenerator
from app.engine.self_check import can_use_slots
from app.models.loader import load_checkpoint
from app.models.memory import free_bytes
from app.models.quantization import model_bytes, quantize_int8
from app.models.text_model import TextModel

Generator: TypeAlias = SlotGenerator | GenerateGenerator

log = get_logger("engine")


@dataclass(frozen=True)
class KvMemory:
    """Memory of the KV cache: of one token, and when every slot is full."""

    bytes_per_token: int
    max_bytes: int


@dataclass(frozen=True)
class Prepared:
    """A warm model; ``kv_memory`` is None where transformers manages the cache."""

    model: TextModel
    generator: Generator
    kv_memory: KvMemory | None


def prepare(settings: Settings, progress: Callable[[float], None], between_tokens: Callable[[], None]) -> Prepared:
    """Load what ``settings`` name. ``progress`` is told shares of 1. Raises ``StartError``.

    ``between_tokens`` is for the fallback, whose steps are long.
    """
    model = TextModel(settings.model_name, load_checkpoint(settings, progress), settings.max_context_tokens)
    has_slots = can_use_slots(model)
    progress(0.9)
    if settings.quantization == "int8":
        quantize(model)
    generator = make_slots(model, settings) if has_slots else GenerateGenerator(model, between_tokens)
    warm_up(generator, model)
    return Prepared(model, generator, kv_memory(generator, model))


def make_slots(model: TextModel, settings: Settings) -> SlotGenerator:
    """The slot engine as the settings want it."""
    return SlotGenerator(
        model,
        num_slots=settings.max_batch_size,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
        reuse_prefix=settings.prefix_cache,
        num_draft_tokens=settings.prompt_lookup,
    )


def quantize(model: TextModel) -> None:
    """Quantise in place and say what it saved."""
    before = model_bytes(model.checkpoint.model)
    quantize_int8(model.checkpoint)
    after = model_bytes(model.checkpoint.model)
    log.info("quantized", model=model.name, to="int8", float32_bytes=before, int8_bytes=after)


def warm_up(generator: Generator, model: TextModel) -> None:
    """Generate a few tokens, so that the first request does not pay for lazy set-up."""
    num_prompt = max(min(8, model.context_tokens - 1), 1)
    num_new = min(4, model.context_tokens - num_prompt)
    job = Job("warm-up", [1] * num_prompt, SamplingParams(num_new, ignore_eos=True))
    generator.add(job)
    while generator.has_work:
        generator.step()
    if isinstance(job.next_events(0)[-1], Failed):
        raise ModelLoadError(f"the model {model.name} does not generate: see the log above")


def kv_memory(generator: Generator, model: TextModel) -> KvMemory | None:
    """What the KV cache may take. Raises ``ModelLoadError`` where that cannot fit."""
    if not isinstance(generator, SlotGenerator):
        return None
    cache = generator.runner.cache
    free = free_bytes(model.checkpoint.device) + cache.num_bytes
    if cache.max_bytes > free:
        raise ModelLoadError(
            f"the KV cache of {cache.num_slots} x {cache.max_tokens} tokens needs {cache.max_bytes / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free: lower FORKLIFT_MAX_BATCH_SIZE or FORKLIFT_MAX_CONTEXT_TOKENS"
        )
    return KvMemory(cache.bytes_per_token, cache.max_bytes)
