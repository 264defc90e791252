"""The slot board, memory of workers and GPUs, as Prometheus metrics; read when they are scraped.

HTTP threads of any worker: the board is shared, so each can answer for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.core.states import WORKER_STATES
from app.core.system.cgroups import memory_limit_bytes
from app.serve.board.slot_board import SlotBoard, SlotState
from app.serve.processes.gpus import gpu_memory_bytes
from app.serve.registry.registration import Registration

# The container's own limit, in control groups of version 2 and 1.
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class BoardCollector:
    """Collects for prometheus_client."""

    def __init__(self, board: SlotBoard, registration: Registration | None = None):
        self._board, self._registration = board, registration

    def collect(self) -> Iterator[Metric]:
        rows = self._board.rows()
        yield _gauge("num_requests_running", "Requests being decoded.", ((row, row.num_running) for row in rows))
        yield _gauge("num_requests_waiting", "Requests in the queue.", ((row, row.num_waiting) for row in rows))
        yield _gauge("load_progress_ratio", "Progress of loading, 0 to 1.", ((row, row.progress) for row in rows))
        yield _states(rows)
        yield _restarts(rows)
        yield _gauge("kv_cache_max_bytes", "KV cache when every sequence is as long as can be.", _kv_cache(rows))
        yield _gauge("process_resident_memory_bytes", "Resident memory of the worker.", _resident(rows))
        total = "Memory of the machine, or less where its container has a limit."
        yield GaugeMetricFamily("forklift_memory_total_bytes", total, value=memory_total_bytes())
        if self._registration is not None:
            yield from _registry(self._registration)
        yield from _gpus(sorted({label for row in rows for label in row.gpus}))


def _gauge(name: str, text: str, values: Iterable[tuple[SlotState, float]]) -> Metric:
    family = GaugeMetricFamily(f"forklift_{name}", text, labels=["slot"])
    for row, value in values:
        family.add_metric([str(row.slot)], value)
    return family


def _states(rows: list[SlotState]) -> Metric:
    family = GaugeMetricFamily("forklift_worker_state", "1 for the state of each slot.", labels=["slot", "state"])
    for row in rows:
        for state in WORKER_STATES:
            family.add_metric([str(row.slot), state], float(row.state == state))
    return family


def _restarts(rows: list[SlotState]) -> Metric:
    text = "Workers that ended without having been told to."
    family = CounterMetricFamily("forklift_worker_restarts", text, labels=["slot"])
    for row in rows:
        family.add_metric([str(row.slot)], row.num_restarts)
    return family


def _kv_cache(rows: list[SlotState]) -> Iterator[tuple[SlotState, float]]:
    return ((row, row.kv_cache_max_bytes) for row in rows if row.kv_cache_max_bytes)


def _resident(rows: list[SlotState]) -> Iterator[tuple[SlotState, float]]:
    for row in rows:
        try:
            if row.pid is not None:
                yield row, psutil.Process(row.pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue


def _registry(registration: Registration) -> Iterator[Metric]:
    connected = "Whether the registry answers."
    yield GaugeMetricFamily("forklift_registry_connected", connected, value=float(registration.is_connected))
    writes = CounterMetricFamily("forklift_registry_writes", "Nodes made, changed and removed in the registry.")
    writes.add_metric([], registration.num_writes)
    yield writes


def memory_total_bytes() -> int:
    """What the workers share before something is killed for it."""
    total = min(psutil.virtual_memory().total, memory_limit_bytes())
    for file in MEMORY_LIMITS:
        # `max`, where there is no limit, is no number.
        with suppress(OSError, ValueError):
            total = min(total, int(file.read_text()))
    return total


def _gpus(labels: list[str]) -> Iterator[Metric]:
    memory = gpu_memory_bytes(labels)
    if not memory:
        return
    used = GaugeMetricFamily("forklift_gpu_memory_used_bytes", "GPU memory in use, by anyone.", labels=["gpu"])
    total = GaugeMetricFamily("forklift_gpu_memory_total_bytes", "GPU memory.", labels=["gpu"])
    for label, (used_bytes, total_bytes) in memory.items():
        used.add_metric([label], used_bytes)
        total.add_metric([label], total_bytes)
    yield from (used, total)
