"""Gives the memory of a model that nobody refers to any more back to the system. Inference thread only."""

from __future__ import annotations

import gc

import torch

from app.core.system.memory.heap import trim_heap


def give_back(device: torch.device) -> None:
    """Free what is garbage, and make the allocators return what they keep for later.

    A model is full of reference cycles, which only the collector frees.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim_heap()
