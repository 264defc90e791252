"""What this process holds, as Linux counts it, and what torch holds on a GPU."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def resident_bytes() -> int:
    """Pages in memory at present, those of mapped files included."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Most that ``resident_bytes`` has been. ``getrusage`` would count the parent's before ``exec``."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resident_bytes()


def gpu_bytes(device: torch.device) -> dict[str, int] | None:
    """Tensors on the GPU now and at most so far; None on the CPU."""
    if device.type != "cuda":
        return None
    return {
        "allocated_bytes": int(torch.cuda.memory_allocated(device)),
        "peak_bytes": int(torch.cuda.max_memory_allocated(device)),
    }
