"""GPU memory as the driver tells it."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from app.serve.processes.gpus import gpu_memory_bytes


def test_without_a_driver_there_is_nothing_to_tell(monkeypatch):
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert gpu_memory_bytes(["0"]) == {}


@pytest.fixture
def one_gpu(monkeypatch):
    def by_index(index: int) -> str:
        if index:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return "handle"

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", by_index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda label: {"GPU-a": "handle"}[label])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=3, total=8))


def test_gpus_are_known_by_index_or_uuid_and_unknown_ones_left_out(one_gpu):
    assert gpu_memory_bytes(["0", "GPU-a", "7"]) == {"0": (3, 8), "GPU-a": (3, 8)}
