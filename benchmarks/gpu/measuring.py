"""One stage in a process of its own: ``python -m benchmarks.gpu.measuring KIND DEVICE FILE [SHAPE FOLDER]``.

Writes its figures to FILE. What a stage took of the GPU goes back with its process.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checking, engine, serving, shapes
from benchmarks.load import median

COPY_BYTES = {"cuda": 4 * 2**30, "cpu": 2**26}
MATRIX = {"cuda": 8192, "cpu": 512}


def measure_device(device: str) -> dict[str, Any]:
    """What the hardware does: bytes read and written per second by a copy, operations per second by a product."""
    source = torch.empty(COPY_BYTES[device], dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    side = MATRIX[device]
    a, b = (torch.randn((side, side), device=device, dtype=torch.bfloat16) for _ in range(2))
    copy_s = timed(lambda: target.copy_(source), device)
    product_s = timed(lambda: a @ b, device)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "accelerate")},
        "copy_gb_per_s": 2 * COPY_BYTES[device] / copy_s / 1e9,
        "bfloat16_tflop_per_s": 2 * side**3 / product_s / 1e12,
    }


def timed(work: Callable[[], object], device: str, num_runs: int = 10) -> float:
    """Median seconds of ``work``, after two runs that do not count."""
    times = []
    for _ in range(num_runs + 2):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[2:])


def main(kind: str, device: str, file: str, shape: str = "", folder: str = "") -> None:
    at = Path(folder)
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "device": lambda: measure_device(device),
        "make": lambda: shapes.write(shape, at, device),
        "parity": lambda: engine.parity(shape, at, device),
        "load": lambda: checking.check_at_load(shape, at, device),
        "attention": lambda: checking.attention(shape, at, device),
        "engine": lambda: engine.speed(shape, at, device),
        "quantized": lambda: engine.quantized(shape, at, device),
        "tests": lambda: checking.run_tests(device),
        **{name: lambda: serving.measure(kind, shape, at, device) for name in serving.CONTENDERS},
    }
    Path(file).write_text(json.dumps(kinds[kind]()))


if __name__ == "__main__":
    main(*sys.argv[1:])
