"""Where the weights lie: on one device, or spread over GPUs, memory and disk. Inference thread only.

The map from layers to devices is computed here, from the model's shape and what each device may
hold, and handed to ``from_pretrained``; accelerate's hooks then bring weights and inputs together.
Nothing is offloaded that the operator did not allow: a model that waits for copies at every pass is
no better than a failed start to one who did not expect it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory
from torch import nn
from transformers import PreTrainedModel

from app.core.errors import ModelLoadError
from app.core.parsing.sizes import CPU
from app.core.settings import Settings
from app.models.checkpoint.device_memory import free_bytes

DISK = "disk"
# Of what is free at load: the rest is for the KV cache, activations and the layers that come from elsewhere.
SHARE_FOR_WEIGHTS = 0.9

Limits: TypeAlias = dict[int | str, int]
DeviceMap: TypeAlias = dict[str, int | str | torch.device]


@dataclass(frozen=True)
class Placement:
    """``from_pretrained``'s arguments; no map: everything in memory, where the file is mapped."""

    device_map: DeviceMap | None
    offload_folder: str | None = None

    @property
    def is_spread(self) -> bool:
        """Whether layers lie on several devices or on disk."""
        devices = {str(device) for device in (self.device_map or {}).values()}
        return len(devices) > 1 or DISK in devices

    def bytes_per_device(self, model: nn.Module) -> dict[str, int]:
        """Weights of the placed ``model`` by device, for the log; tied ones count once."""
        devices: DeviceMap = self.device_map or {"": CPU}
        found: Counter[str] = Counter()
        for name, weight in model.named_parameters():
            parts = name.split(".")
            prefixes = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
            device = next(devices[prefix] for prefix in prefixes if prefix in devices)
            found[str(device)] += weight.numel() * weight.element_size()
        return dict(found)


def place(settings: Settings, device: torch.device, shape: Callable[[], PreTrainedModel]) -> Placement:
    """The placement that ``settings`` ask for; ``shape`` makes the model without weights (on ``meta``).

    Raises ``ModelLoadError`` where the weights do not fit what may be used.
    """
    num_gpus = settings.gpus_per_worker if device.type == "cuda" else 0
    if num_gpus <= 1 and not settings.max_memory and settings.offload_folder is None:
        return Placement({"": device} if num_gpus else None)
    if settings.quantization != "none":
        raise ModelLoadError("quantised weights cannot be spread over devices: GPUS_PER_WORKER must be 1")
    limits = memory_limits(settings.memory_limits, num_gpus, free_bytes)
    device_map = spread(shape(), limits)
    if DISK in device_map.values():
        check_offload(settings.offload_folder, limits)
    return Placement(device_map, settings.offload_folder)


def memory_limits(given: dict[int | str, int], num_gpus: int, free: Callable[[torch.device], int]) -> Limits:
    """Bytes for weights per device: what was given, else most of what is free.

    Beside GPUs the CPU's memory counts only where it was given.
    """
    limits: Limits = {}
    for gpu in range(num_gpus):
        limits[gpu] = given.get(gpu, int(free(torch.device("cuda", gpu)) * SHARE_FOR_WEIGHTS))
    in_memory = 0 if num_gpus else int(free(torch.device("cpu")) * SHARE_FOR_WEIGHTS)
    return {**limits, CPU: given.get(CPU, in_memory)}


def spread(model: PreTrainedModel, limits: Limits) -> DeviceMap:
    """Layers to devices: evenly over the GPUs, then memory, then disk; what is tied stays together."""
    model.tie_weights()
    whole: set[str] = set(model._no_split_modules or ())
    has_gpus = any(device != CPU for device in limits)
    balanced = get_balanced_memory(model, limits, no_split_module_classes=whole) if has_gpus else limits
    device_map: DeviceMap = dict(infer_auto_device_map(model, max_memory=balanced, no_split_module_classes=whole))
    return device_map


def check_offload(folder: str | None, limits: Limits) -> None:
    """Raise ``ModelLoadError`` unless weights may be left on disk."""
    if folder is None:
        room = ", ".join(f"{device}={limit / 2**30:.2f}GiB" for device, limit in limits.items())
        raise ModelLoadError(
            f"its weights do not fit into {room}: raise FORKLIFT_MAX_MEMORY or FORKLIFT_GPUS_PER_WORKER, "
            "or allow reading from disk with FORKLIFT_OFFLOAD_FOLDER (slow)"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelLoadError(f"FORKLIFT_OFFLOAD_FOLDER: cannot make {folder}: {error.strerror}") from error
