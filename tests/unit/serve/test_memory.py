"""Shared files: pages are there before they are used, the next folder where one has no room, nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.errors import StartError
from app.serve.board import metrics_folder, shared_files
from app.serve.board.metrics_folder import FILE_BYTES, FOLDER, make_metrics_folder, remove_leftovers
from app.serve.board.slot_board import SlotBoard


@pytest.fixture
def two_folders(tmp_path, monkeypatch):
    """The folder in memory and the temporary one, both of the test's own."""
    first, second = tmp_path / "shm", tmp_path / "tmp"
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(shared_files, "folders", lambda: iter([first, second]))
    monkeypatch.setattr(metrics_folder.atexit, "register", lambda *_: None)
    monkeypatch.setenv(FOLDER, "")
    return first, second


def fill_up(monkeypatch, folder: Path) -> None:
    """No page is left in ``folder``."""
    reserve = shared_files.reserve

    def full(fd: int, num_bytes: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(fd, num_bytes)

    monkeypatch.setattr(shared_files, "reserve", full)


def test_every_page_of_the_metrics_is_there_from_the_start(two_folders):
    make_metrics_folder(2)
    files = sorted(Path(os.environ[FOLDER]).glob("*.db"))
    assert [file.name for file in files] == [
        f"{kind}_slot{slot}.db" for kind in ("counter", "histogram") for slot in (0, 1)
    ]
    assert all(file.stat().st_size == FILE_BYTES and file.stat().st_blocks * 512 >= FILE_BYTES for file in files)


@pytest.mark.parametrize("fault", ["full", "missing"])
def test_where_the_memory_folder_has_no_room_the_temporary_one_is_taken(two_folders, monkeypatch, fault):
    first, second = two_folders
    if fault == "full":
        fill_up(monkeypatch, first)
    else:
        first.rmdir()
    make_metrics_folder(1)
    assert Path(os.environ[FOLDER]).parent == second
    assert not list(first.glob("*"))
    board = SlotBoard([()])
    board.set_state(0, "ready")
    assert board.rows()[0].state == "ready"


def test_where_no_folder_has_room_the_start_ends_with_one_line(two_folders, monkeypatch):
    fill_up(monkeypatch, two_folders[0].parent)
    with pytest.raises(StartError, match=r"there is no room for the slot board .*No space left on device.*TMPDIR"):
        SlotBoard([()])
    with pytest.raises(StartError, match="there is no room for the metrics"):
        make_metrics_folder(1)


def test_the_folder_of_a_killed_server_is_removed_and_that_of_a_living_one_kept(two_folders):
    first, _ = two_folders
    code = (
        "import sys, pathlib\n"
        "from app.serve.board import metrics_folder, shared_files\n"
        f"shared_files.folders = lambda: iter([pathlib.Path({str(first)!r})])\n"
        "metrics_folder.make_metrics_folder(1)\n"
        "print('made', flush=True)\n"
        "sys.stdin.read()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert server.stdout.readline() == b"made\n"
    remove_leftovers()
    assert len(list(first.glob("forklift-metrics-*"))) == 1
    server.kill()
    server.communicate()
    assert len(list(first.glob("forklift-metrics-*"))) == 1
    (first / "forklift-metrics-link").symlink_to(first)
    remove_leftovers()
    assert [folder.name for folder in first.glob("forklift-metrics-*")] == ["forklift-metrics-link"]
