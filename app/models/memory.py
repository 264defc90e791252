"""How much memory a device has left. Inference thread only."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take: of the GPU, or of the machine and its container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), _container_free_bytes())


def _container_free_bytes() -> int:
    """What the cgroup (version 2) leaves; more than any machine has where there is no limit.

    Files in the page cache are free, as they are for the machine: weights that were only read would
    else fill the container.
    """
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        cached = int(stat["active_file"]) + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 2**62
    return 2**62 if limit == "max" else max(int(limit) - max(used - cached, 0), 0)
