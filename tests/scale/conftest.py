"""Real Ray nodes on loopback addresses. ``make test-scale`` installs Ray and gives them a network of their own."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.scale.cluster import Cluster, cluster
from tools.loopback_only import is_inside

PROXIES = ("haproxy", "python")
LEAST_FREE_GIB = 3.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is of the marker ``scale``, and is skipped where it cannot be run."""
    reason = missing()
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.scale)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


def missing() -> str | None:
    """Why these tests cannot be run here; None where they can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: make test-scale"
    if not is_inside():
        return "Ray listens on every address: run in a network namespace, as make test-scale does"
    free_gib = psutil.virtual_memory().available / 2**30
    if free_gib < LEAST_FREE_GIB:
        return f"{free_gib:.1f} GiB of memory are free, and two nodes with their replicas need {LEAST_FREE_GIB:g}"
    return None


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets lie in it, and their names may not be long."""
    with tempfile.TemporaryDirectory(prefix="fl", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> str:
    """Each of the two that may stand in front."""
    return str(request.param)


@pytest.fixture(scope="module", params=PROXIES)
def two_nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes with a replica each, behind each proxy in turn. A cluster of a test's own would find the same ports."""
    with (
        tempfile.TemporaryDirectory(prefix="fl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        cluster(Path(folder), 2, "2", {"proxy": request.param}, queue_timeout_s=200) as made,
    ):
        yield made
