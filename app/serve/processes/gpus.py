"""Which GPUs each worker slot gets, and the environment that binds a worker to them.

The master plans, a new worker binds itself; neither may import torch: a process that has touched
CUDA cannot fork workers that use it (pytorch #68861), so GPUs are counted from
``CUDA_VISIBLE_DEVICES`` or by NVML.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.errors import DeviceError, SettingsError
from app.core.settings import Settings
from app.core.system.cgroups import num_cores
from app.core.system.openmp import SPIN_ENVIRONMENT

Labels = tuple[str, ...]


def gpu_labels(settings: Settings, environ: Mapping[str, str]) -> Labels:
    """The GPUs of this machine: the labels of ``CUDA_VISIBLE_DEVICES`` verbatim, else NVML's indices.

    With DEVICE=cpu NVML is not asked.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return _visible_labels(visible)
    if settings.device == "cpu":
        return ()
    return tuple(str(index) for index in range(_count_by_nvml()))


def plan_slots(settings: Settings, environ: Mapping[str, str]) -> list[Labels]:
    """GPU labels of each worker slot, lowest slot first; an empty tuple is a worker on the CPU.

    Raises ``DeviceError`` where DEVICE=cuda finds no GPU, ``SettingsError`` where the GPUs do not
    suffice for the workers.
    """
    labels = gpu_labels(settings, environ)
    if not labels:
        if settings.device == "cuda":
            raise DeviceError("FORKLIFT_DEVICE is cuda, but no GPU was found by CUDA_VISIBLE_DEVICES or NVML")
        return [()] * (settings.workers or 1)
    places = _places(labels, settings)
    num_slots = settings.workers or len(places)
    if num_slots > len(places) and settings.device == "cpu":
        places = places + [()] * (num_slots - len(places))
    _require_places(settings, num_slots, len(places), len(labels))
    return places[:num_slots]


def slot_environment(settings: Settings, labels: Labels, num_slots: int, environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker's environment must hold before torch, tokenizers or the hub are imported."""
    changes = {"TOKENIZERS_PARALLELISM": "false"}
    if labels:
        changes["CUDA_VISIBLE_DEVICES"] = ",".join(labels)
        if "CUDA_VISIBLE_DEVICES" not in environ:
            # The indices came from NVML, which counts in this order; CUDA's default is fastest first.
            changes["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if "OMP_NUM_THREADS" not in environ:
        changes["OMP_NUM_THREADS"] = str(max(1, num_cores() // num_slots))
    if "OMP_WAIT_POLICY" not in environ and "GOMP_SPINCOUNT" not in environ:
        changes |= SPIN_ENVIRONMENT
    if all(Path(plan.settings.model).is_dir() for plan in settings.plans):
        changes["HF_HUB_OFFLINE"] = "1"
    return changes


def bind(settings: Settings, labels: Labels, num_slots: int, environ: MutableMapping[str, str] | None = None) -> None:
    """Bind this process to its GPUs and share of the cores."""
    environ = os.environ if environ is None else environ
    environ.update(slot_environment(settings, labels, num_slots, environ))


def gpu_memory_bytes(labels: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Memory in use and in all of each GPU that the driver knows by its label; empty without a driver."""
    import pynvml

    found: dict[str, tuple[int, int]] = {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return found
    try:
        for label in labels:
            with suppress(pynvml.NVMLError):
                memory = pynvml.nvmlDeviceGetMemoryInfo(_handle(label))
                found[label] = (int(memory.used), int(memory.total))
    finally:
        pynvml.nvmlShutdown()
    return found


def _handle(label: str) -> Any:
    """NVML's handle of a GPU named by index or by UUID (of a GPU or of a MIG instance)."""
    import pynvml

    if label.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(label))
    return pynvml.nvmlDeviceGetHandleByUUID(label)


def _visible_labels(value: str) -> Labels:
    """As CUDA reads it: what follows an entry of -1 does not count."""
    labels = [label.strip() for label in value.split(",")]
    if "-1" in labels:
        labels = labels[: labels.index("-1")]
    return tuple(label for label in labels if label)


def _places(labels: Labels, settings: Settings) -> list[Labels]:
    """One entry per worker that fits; every GPU gets its first worker before any gets its second."""
    size = settings.gpus_per_worker
    groups = [labels[at : at + size] for at in range(0, len(labels) - size + 1, size)]
    return groups * settings.workers_per_gpu


def _require_places(settings: Settings, num_slots: int, num_places: int, num_gpus: int) -> None:
    if num_places == 0:
        raise SettingsError(f"FORKLIFT_GPUS_PER_WORKER is {settings.gpus_per_worker}, but there are {num_gpus} GPUs")
    if num_slots > num_places:
        raise SettingsError(
            f"FORKLIFT_WORKERS is {num_slots}, but {num_gpus} GPUs have room for {num_places}; "
            "lower it or raise FORKLIFT_WORKERS_PER_GPU"
        )


def _count_by_nvml() -> int:
    """GPUs that the driver lists; 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
