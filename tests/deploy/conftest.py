"""Servers, and the names of what their /metrics shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from app.core.metrics import Metrics
from app.serve.board import board_metrics
from app.serve.board.slot_board import SlotBoard
from app.serve.registry.registration import Registration
from tests.service.conftest import StartServer, SteppingServer, server_starter


@pytest.fixture(scope="session")
def metric_names() -> set[str]:
    """Every family that /metrics can show, with the samples' names; those of a GPU too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
        patch.setattr(board_metrics, "gpu_memory_bytes", lambda labels: {"0": (1, 2)})
        registry = CollectorRegistry()
        registry.register(Metrics().source())
        registry.register(board_metrics.BoardCollector(SlotBoard([("0",)]), Registration()))
        text = generate_latest(registry).decode()
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    samples = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    histograms = {line.split()[2] for line in text.splitlines() if line.endswith(" histogram")}
    return families | samples | {f"{name}{end}" for name in histograms for end in ("_bucket", "_sum", "_count")}


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """The processes alone, on stand-ins."""
    yield from server_starter(tmp_path)


@pytest.fixture
def start_stepping(tmp_path: Path) -> Iterator[StartServer]:
    """The real application on a stand-in for the engine."""
    yield from server_starter(tmp_path, SteppingServer)
