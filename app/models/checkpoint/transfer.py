"""Numbers of the host on their way to a device, in transfers that nobody waits for.

A plain copy to a GPU waits until the device has done all that it was told before; one from memory that the driver
knows (pinned) does not. torch keeps such memory until the copy is made. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def sent(numbers: np.ndarray, device: torch.device) -> torch.Tensor:
    """``numbers`` on ``device``, behind everything that was launched before; on a CPU the same memory."""
    there = torch.from_numpy(numbers)
    return there if device.type == "cpu" else there.pin_memory().to(device, non_blocking=True)


def sent_whole(numbers: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Whole numbers in the same way, int64."""
    return sent(np.array(numbers, dtype=np.int64), device)


class Staged:
    """``on_device`` ``shape``, always in the same memory: written as ``on_host``, moved by ``send``."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self.on_device = torch.zeros(shape, dtype=dtype, device=device)
        self.on_host = torch.zeros(shape, dtype=dtype).numpy()

    def send(self) -> None:
        """Have what was written on the device, behind everything that was launched before."""
        source = torch.from_numpy(self.on_host)
        if self.on_device.device.type != "cpu":
            source = source.pin_memory()
        self.on_device.copy_(source, non_blocking=True)
