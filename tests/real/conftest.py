"""The trained models of ``.models``; without them these tests are skipped with their reason."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import pytest

from tools.real_models import FOLDER


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)


def folder_of(name: str) -> Path:
    if not (FOLDER / name).exists():
        pytest.skip(f"no trained model: `make {name}` fetches it")
    return FOLDER / name


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return folder_of("smollm2")


@pytest.fixture(scope="session")
def minilm() -> Path:
    return folder_of("minilm")


@pytest.fixture(scope="session")
def documentation() -> str:
    """Python's own documentation, as the standard library carries it."""
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))
