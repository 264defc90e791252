"""Workers on the CPU share the pages of weights that are loaded in their own dtype."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Forklift
from tests.families.wide import MIB, save_wide_model
from tests.service.conftest import StartServer, server_starter

pytestmark = pytest.mark.slow

NUM_MIB = 60


@pytest.fixture
def start(tmp_path) -> Iterator[StartServer]:
    (tmp_path / "servers").mkdir()
    yield from server_starter(tmp_path / "servers", Forklift)


def weights_of(pid: int) -> dict[str, int]:
    """Bytes of the mapped safetensors file: resident, proportional, private."""
    found: dict[str, int] = {}
    is_weights = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_weights = line.endswith(".safetensors")
        elif is_weights and line.endswith(" kB"):
            name, size, _ = line.split()
            found[name[:-1]] = found.get(name[:-1], 0) + int(size) * 1024
    return found


def test_two_workers_hold_the_weights_once(start, tmp_path):
    folder = save_wide_model(tmp_path / "wide", NUM_MIB)
    size = (folder / "model.safetensors").stat().st_size
    assert size > NUM_MIB * MIB * 0.9
    server = start(num_ready=2, model=folder, workers=2)
    held = [weights_of(row["pid"]) for row in server.rows()]
    assert [one["Rss"] > 0.9 * size for one in held] == [True, True], "both have read all of it, mapped"
    assert sum(one["Pss"] for one in held) < 1.2 * size, "together they hold it once"
    assert all(one["Anonymous"] < 0.1 * size for one in held), "nothing was written to"
