"""Fixtures for every suite: small models of the real architectures, made once per run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Tiny models gain nothing from a second thread, and OpenMP's waiting threads lose much on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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
