"""Measures what serving one model takes, in a process of its own: disk, memory, KV cache, and what fits.

What fits follows the rule by which the server refuses to load: weights as measured, and a KV cache
whose rows are all full. Activations of a pass are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.settings import Settings
from app.engine.loading.build import prepare
from app.engine.loading.prepared import KvMemory
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.loader import Checkpoint
from app.models.served_model import context_size
from app.models.weights.quantization import model_bytes
from app.reports.process_memory import gpu_bytes, peak_resident_bytes, resident_bytes

SHORTEST_CONTEXT_TOKENS = 512
# The most that FORKLIFT_MAX_BATCH_SIZE takes.
LARGEST_BATCH = 1024


def measure_resources(settings: Settings, progress: Callable[[float], None]) -> dict[str, Any]:
    """Load as a worker does, with one row in the KV cache, and tell what that took."""
    before_bytes = resident_bytes()
    started_s = time.perf_counter()
    ready = prepare(settings, progress)
    load_s = time.perf_counter() - started_s
    checkpoint = ready.model.checkpoint
    free = free_bytes(checkpoint.device)
    at_rest_bytes = resident_bytes()
    progress(1.0)
    return {
        "task": checkpoint.task,
        "device": str(checkpoint.device),
        "dtype": ready.model.dtype,
        "quantization": ready.settings.quantization,
        "disk": disk(settings.model),
        "load_s": load_s,
        "weights_bytes": model_bytes(checkpoint.model),
        "ram": {
            "before_bytes": before_bytes,
            # The kernel keeps the two counts apart, and they differ by some pages.
            "peak_bytes": max(peak_resident_bytes(), at_rest_bytes),
            "at_rest_bytes": at_rest_bytes,
        },
        "gpu": gpu_bytes(checkpoint.device),
        "free_bytes": free,
        **kv_figures(ready.kv_memory, free, checkpoint),
    }


def disk(source: str) -> dict[str, int] | None:
    """Bytes of the folder and of its weights; None for a model that is no folder."""
    folder = Path(source)
    if not folder.is_dir():
        return None
    files = [path for path in folder.rglob("*") if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"]
    return {"folder_bytes": _size(files), "weights_bytes": _size(weights)}


def _size(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def kv_figures(memory: KvMemory | None, free: int, checkpoint: Checkpoint) -> dict[str, Any]:
    """Memory of a token and what fits ``free``; nulls where there is no cache, or transformers manages it."""
    longest = context_size(checkpoint.model.config)
    if memory is None:
        return {"kv_bytes_per_token": None, "longest_context_tokens": longest, "fits": None}
    return {
        "kv_bytes_per_token": memory.bytes_per_token,
        "longest_context_tokens": longest,
        "fits": fits(memory.bytes_per_token, free, longest),
    }


def fits(bytes_per_token: int, free: int, longest_tokens: int | None) -> list[dict[str, int]]:
    """Per context length the largest batch whose full KV cache fits ``free`` bytes.

    Contexts double from 512 to the model's own, or as far as one row fits; the last is the largest that does.
    """
    room_tokens = free // bytes_per_token
    largest = min(room_tokens, longest_tokens or room_tokens)
    contexts, context = [], SHORTEST_CONTEXT_TOKENS
    while context < largest:
        contexts.append(context)
        context *= 2
    contexts += [largest] if largest > 1 else []
    return [{"context_tokens": c, "max_batch_size": min(room_tokens // c, LARGEST_BATCH)} for c in contexts]
