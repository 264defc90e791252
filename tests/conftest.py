"""Fixtures for every suite: small models of the real architectures, made once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ModelFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """``model_folder("qwen2")`` is a loadable folder with a small random model of that family."""
    from tests.tiny_models import save_tiny_model

    root = tmp_path_factory.mktemp("models")

    def make(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else save_tiny_model(family, folder)

    return make
