"""What the board collector tells of memory."""

from __future__ import annotations

import psutil
import pytest

from app.serve.board import board_metrics


@pytest.fixture
def limit_file(tmp_path, monkeypatch):
    file = tmp_path / "memory.max"
    monkeypatch.setattr(board_metrics, "MEMORY_LIMITS", (file,))
    return file


@pytest.mark.parametrize("text", [None, "max\n", "9223372036854771712\n"])
def test_without_a_limit_it_is_the_machines_memory(limit_file, text):
    if text is not None:
        limit_file.write_text(text)
    assert board_metrics.memory_total_bytes() == psutil.virtual_memory().total


def test_a_containers_limit_is_less(limit_file):
    limit_file.write_text("1000000\n")
    assert board_metrics.memory_total_bytes() == 1_000_000
