"""How much memory a device has left. Inference thread only."""

from __future__ import annotations

import psutil
import torch

from app.core.system.cgroups import ROOT as CGROUP
from app.core.system.cgroups import free_memory_bytes


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take: of the GPU, or of the machine and its container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), free_memory_bytes(CGROUP))
