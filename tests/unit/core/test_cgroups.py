"""Quotas and limits of control groups, of both versions, on whichever level they lie."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from app.core.system import cgroups

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``write(group files, own groups)``; the process may run on eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))

    def write(files: dict[str, str], own: str) -> tuple[Path, Path]:
        root = tmp_path / "cgroup"
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text + "\n")
        (tmp_path / "own").write_text(own)
        return root, tmp_path / "own"

    return write


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"cpu.max": "100000 100000"}, "0::/\n", 1),
        ({"cpu.max": "150000 100000"}, "0::/\n", 1),
        ({"cpu.max": "50000 100000"}, "0::/\n", 1),
        ({"cpu.max": "400000 100000"}, "0::/\n", 4),
        ({"cpu.max": "max 100000"}, "0::/\n", 8),
        ({"cpu.max": "1600000 100000"}, "0::/\n", 8),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, "0::/a/b\n", 2),
        ({"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, "0::/a/b\n", 2),
        ({"a/b/cpu.max": "100000 100000", "a/cpu.max": "200000 100000"}, "0::/a/b\n", 1),
        # The container sees its own group as the root; the path is the host's.
        ({"cpu.max": "200000 100000"}, "0::/docker/0123\n", 2),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 8),
        ({"cpu,cpuacct/k/p/cpu.cfs_quota_us": "300000", "cpu,cpuacct/k/p/cpu.cfs_period_us": "100000"},
         "4:cpu,cpuacct:/k/p\n1:name=systemd:/x\n", 3),
        ({"cpu/k/cpu.cfs_quota_us": "300000", "cpu/k/cpu.cfs_period_us": "100000", "cpu/k/p/cpu.cfs_quota_us": "-1",
          "cpu/k/p/cpu.cfs_period_us": "100000"}, "4:cpu:/k/p\n0::/\n", 3),
        ({}, "", 8),
        ({"cpu.max": "nonsense"}, "0::/../..\n", 8),
        ({"cpu.max": "0 0"}, "0::/\n", 8),
    ],
)  # fmt: skip
def test_the_smallest_quota_on_the_way_to_the_root_decides(machine, files, own, cores):
    assert cgroups.num_cores(*machine(files, own)) == cores


def test_without_a_quota_it_is_infinite(machine):
    assert cgroups.cpu_quota(*machine({}, "")) == math.inf


@pytest.mark.parametrize(
    ("files", "own", "limit", "free"),
    [
        ({"memory.max": f"{8 * GIB}", "memory.current": f"{3 * GIB}"}, "0::/\n", 8 * GIB, 5 * GIB),
        (
            {"a/memory.max": f"{2 * GIB}", "a/memory.current": f"{GIB}", "a/b/memory.max": "max"},
            "0::/a/b\n",
            2 * GIB,
            GIB,
        ),
        ({"a/memory.max": "max", "a/memory.high": f"{GIB}", "a/memory.current": "0"}, "0::/a\n", GIB, GIB),
        (
            {
                "memory.max": f"{8 * GIB}",
                "memory.current": f"{8 * GIB}",
                "memory.stat": f"anon 1\nactive_file {GIB}\ninactive_file {GIB}",
            },
            "0::/\n",
            8 * GIB,
            2 * GIB,
        ),
        (
            {
                "memory/k/memory.limit_in_bytes": f"{4 * GIB}",
                "memory/k/memory.usage_in_bytes": f"{3 * GIB}",
                "memory/k/memory.stat": f"active_file 0\ntotal_active_file {GIB}\ntotal_inactive_file 0",
                "memory/k/p/memory.limit_in_bytes": "9223372036854771712",
                "memory/k/p/memory.usage_in_bytes": "5",
            },
            "4:memory:/k/p\n",
            4 * GIB,
            2 * GIB,
        ),
        ({"memory.max": f"{GIB}", "memory.current": f"{2 * GIB}"}, "0::/\n", GIB, 0),
        ({}, "", cgroups.UNLIMITED_BYTES, cgroups.UNLIMITED_BYTES),
    ],
)
def test_the_strictest_limit_of_memory_counts_on_every_level(machine, files, own, limit, free):
    places = machine(files, own)
    assert cgroups.memory_limit_bytes(*places) == limit
    assert cgroups.free_memory_bytes(*places, places[1].with_name("none")) == free


def test_what_this_process_holds_is_in_use_whatever_its_group_counts(machine):
    root, own_groups = machine({"memory.max": f"{8 * GIB}", "memory.current": f"{GIB}"}, "0::/\n")
    own_pages = own_groups.with_name("statm")
    page = os.sysconf("SC_PAGE_SIZE")
    own_pages.write_text(f"{9 * GIB // page} {3 * GIB // page} {GIB // page} 10 0 20 0\n")
    assert cgroups.free_memory_bytes(root, own_groups, own_pages) == 6 * GIB
    own_pages.write_text("nonsense")
    assert cgroups.free_memory_bytes(root, own_groups, own_pages) == 7 * GIB


def test_this_process_has_cores_and_memory():
    assert 1 <= cgroups.num_cores() <= len(os.sched_getaffinity(0))
    assert cgroups.free_memory_bytes() > 0
