"""Which device and precision the model gets. Runs on the inference thread; imports torch.

The GPUs of this worker's slot are the only ones that CUDA can see: ``post_fork`` sets
``CUDA_VISIBLE_DEVICES`` before torch is imported. Knows nothing of slots.
"""

from __future__ import annotations

import os
from typing import Literal

import torch

from app.core.errors import DeviceError
from app.core.settings import Settings


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to load on.

    Raises ``DeviceError`` instead of falling back to the CPU when a GPU was asked for, or was
    promised by ``CUDA_VISIBLE_DEVICES`` (a container that lost its GPU must not serve slowly).
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    promised = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if wanted == "cuda" or promised not in ("", "-1", "NoDevFiles"):
        reason = f"CUDA_VISIBLE_DEVICES is {promised!r}" if promised else "FORKLIFT_DEVICE is cuda"
        raise DeviceError(
            f"{reason}, but torch {torch.__version__} cannot use a GPU here "
            "(check the driver and the torch build, or set FORKLIFT_DEVICE=cpu)"
        )
    return torch.device("cpu")


def choose_dtype(settings: Settings) -> torch.dtype | Literal["auto"]:
    """The dtype argument for ``from_pretrained``; ``auto`` keeps the checkpoint's own.

    Weights that will be int8 stay as they are in their file, which is mapped, until each becomes int8: no
    copy of the whole model is made for the float32 that the rest computes in on a CPU. int4, fp8: made of bfloat16.
    """
    names = {"none": settings.dtype, "int8": "auto", "int4": "bfloat16", "file": "bfloat16", "fp8": "bfloat16"}
    name = names[settings.quantization]
    if name == "auto":
        return "auto"
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def slow_dtype(device: torch.device, dtype: torch.dtype) -> str | None:
    """What to set instead of a dtype that ``device`` runs badly; None where it runs well.

    float16 on a CPU saves memory and no time: a product of 64 rows with 4096 x 1024 weights took 9.0 ms
    in float16, 0.9 ms in bfloat16 on a CPU that knows both (AVX512-FP16, AMX; torch 2.13).
    """
    if device.type == "cpu" and dtype == torch.float16:
        return "FORKLIFT_DTYPE=bfloat16 needs as much memory and is faster; float32 is exact"
    return None
