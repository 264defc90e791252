"""The folder in which the workers of one server share their metrics. Made and removed by the master.

It must be in the environment before anything imports prometheus_client, which looks for it then; so
this module does not import ``app.core.metrics``. A lock that all processes of the server hold together tells the next
server whether the folder was left behind.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.core.logs.logging import get_logger
from app.serve.board import shared_files

# The name is prometheus_client's, and so are those of the files: one per kind and identity.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
FILES = ("counter_{}.db", "histogram_{}.db")
# Room for some two thousand combinations of labels; routes, statuses, codes and models make a few hundred.
FILE_BYTES = 262_144
_PREFIX = "forklift-metrics-"
_LOCK = "lock"

log = get_logger("serve")


def make_metrics_folder(num_slots: int) -> None:
    """Make a fresh folder, tell it to all processes to be, and remove it when this process exits. Raises
    ``StartError`` where no folder has room. What killed servers left behind is removed."""
    remove_leftovers()
    folder = shared_files.make_in_first(lambda parent: _make(parent, num_slots), "the metrics of the workers")
    os.environ[FOLDER] = str(folder)
    atexit.register(_remove, str(folder), os.getpid())


def slot_identity(slot: int) -> str:
    """What the worker of this slot is called in the folder."""
    return f"slot{slot}"


def reserve_files(folder: Path, identity: str) -> None:
    """Make the files of one identity. Raises OSError where they do not fit."""
    for name in FILES:
        fd = os.open(folder / name.format(identity), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            shared_files.reserve(fd, FILE_BYTES)
        finally:
            os.close(fd)


def remove_orphaned() -> None:
    """For a worker whose master was killed and cannot remove the folder any more."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def remove_leftovers(parents: Iterable[Path] | None = None) -> None:
    """Remove the folders of servers of which no process lives."""
    for parent in shared_files.folders() if parents is None else parents:
        for folder in parent.glob(f"{_PREFIX}*"):
            if _is_left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)
                log.info("metrics_folder_removed", folder=str(folder))


def _make(parent: Path, num_slots: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        # Never closed: workers inherit it, and the lock goes with the last of them.
        fcntl.flock(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
        for slot in range(num_slots):
            reserve_files(folder, slot_identity(slot))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _is_left_behind(folder: Path) -> bool:
    """Whether it is ours and nobody holds its lock; the folder of another user, or a link, is left alone."""
    with suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(fd)
    return False


def _remove(folder: str, owner_pid: int) -> None:
    # A forked child inherits what is to be done at exit.
    if os.getpid() == owner_pid:
        shutil.rmtree(folder, ignore_errors=True)
