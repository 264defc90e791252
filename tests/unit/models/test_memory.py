"""Free memory as a container sees it."""

from __future__ import annotations

import pytest
import torch

from app.models.checkpoint import device_memory

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Writes the files of a cgroup; the machine itself has room for anything."""
    monkeypatch.setattr(device_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(device_memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2**50}))

    def write(limit: str, used: int, cached: int) -> None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        stat = f"anon 1\nactive_file {cached // 2}\ninactive_file {cached - cached // 2}\n"
        (tmp_path / "memory.stat").write_text(stat)

    return write


def test_a_containers_limit_is_what_may_be_taken(cgroup):
    cgroup(str(8 * GIB), 3 * GIB, 0)
    assert device_memory.free_bytes(CPU) == 5 * GIB


def test_files_in_the_page_cache_take_nothing_from_it(cgroup):
    cgroup(str(8 * GIB), 8 * GIB, 6 * GIB)
    assert device_memory.free_bytes(CPU) == 6 * GIB


def test_without_a_limit_the_machine_counts(cgroup):
    cgroup("max", 3 * GIB, 0)
    assert device_memory.free_bytes(CPU) == 2**50
