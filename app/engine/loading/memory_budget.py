"""Memory for one more model: what it needs, and what is free of that. Inference thread only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from app.engine.loading.handle import ModelHandle
from app.engine.loading.prepared import Prepared
from app.models.checkpoint.device_memory import free_bytes
from app.models.forecast import Footprint
from app.models.weights.packing import wants_packing

# Beside weights and cache: activations, tokenizer, bookkeeping.
MARGIN = 1.05


def missing_bytes(wanted: ModelHandle, handles: Iterable[ModelHandle], device: torch.device) -> int:
    """What is not free of the memory that the model needs; 0 or less where all of it is."""
    free = free_bytes(device) - promised_bytes(handles)
    return int(num_bytes(wanted) * MARGIN) - free


def promised_bytes(handles: Iterable[ModelHandle]) -> int:
    """Memory that counts as free and belongs to loaded models: caches that will grow, mapped weights."""
    promised = 0
    for one in handles:
        if (prepared := one.prepared) is not None:
            promised += prepared.kv_growth_bytes
            if one.footprint is not None and one.footprint.is_mapped:
                promised += one.footprint.weight_bytes
    return promised


def num_bytes(handle: ModelHandle) -> int:
    """What the model takes; hub ids, which cannot be measured, are loaded at the start and stay."""
    return 0 if handle.footprint is None else handle.footprint.num_bytes


def as_loaded(predicted: Footprint, prepared: Prepared) -> Footprint:
    """The footprint, with what only the loaded model tells."""
    kv_bytes = predicted.kv_bytes if prepared.kv_memory is None else prepared.kv_memory.max_bytes
    is_mapped = predicted.is_mapped and not wants_packing(prepared.model.checkpoint, prepared.settings)
    return replace(predicted, kv_bytes=kv_bytes, is_mapped=is_mapped)
