"""Tests of a real GPU; everywhere else they are collected and skipped with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
REASON = "needs a GPU that torch can use"
# Compilers of kernels say this and that of the device and of float32, which elsewhere would fail a test.
MAY_WARN = pytest.mark.filterwarnings("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    has_gpu = torch.cuda.is_available()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(MAY_WARN if has_gpu else pytest.mark.skip(reason=REASON))
