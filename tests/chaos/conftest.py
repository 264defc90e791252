"""Servers for the long tests; each of these takes from ten seconds to minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Forklift
from tests.e2e.faulty import FaultyForklift
from tests.service.conftest import StartServer, SteppingServer, server_starter


@pytest.fixture
def start_stepping(tmp_path: Path) -> Iterator[StartServer]:
    """Starts the real application on the stand-in for the engine."""
    yield from server_starter(tmp_path, SteppingServer)


@pytest.fixture
def start_forklift(tmp_path: Path) -> Iterator[StartServer]:
    """Starts the whole product."""
    yield from server_starter(tmp_path, Forklift)


@pytest.fixture
def start_faulty(tmp_path: Path) -> Iterator[StartServer]:
    """Starts the whole product with faults to order."""
    yield from server_starter(tmp_path, FaultyForklift)
