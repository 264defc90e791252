"""The pages, and a server with the demo model for their commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forklift]:
    """One worker with the embedded demo model, shared by all commands."""
    starter = server_starter(tmp_path_factory.mktemp("documented"), Forklift)
    yield next(starter)()
    next(starter, None)
