"""Gives the memory of a model that nobody refers to any more back to the system. Inference thread only."""

from __future__ import annotations

import ctypes
import gc

import torch


def give_back(device: torch.device) -> None:
    """Free what is garbage, and make the allocators return what they keep for later.

    A model is full of reference cycles, which only the collector frees. glibc keeps freed memory
    below the top of its heaps; other C libraries have no ``malloc_trim``.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
