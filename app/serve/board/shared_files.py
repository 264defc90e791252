"""Where files lie that processes share: in memory where there is room, else in the temporary folder.

Every page is written before it is mapped. A page that a full file system cannot give ends the process that touches it
with SIGBUS, whenever that is; a write that fails is an error like any other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from app.core.errors import StartError

SHARED_MEMORY = Path("/dev/shm")

Made = TypeVar("Made")


def folders() -> Iterator[Path]:
    """Where shared files may lie, the best first."""
    if SHARED_MEMORY.is_dir():
        yield SHARED_MEMORY
    try:
        yield Path(tempfile.gettempdir())
    except FileNotFoundError:
        return


def make_in_first(make: Callable[[Path], Made], what: str) -> Made:
    """What ``make`` makes of the first folder that has room for it. Raises ``StartError`` where none has."""
    reasons = []
    for folder in folders():
        try:
            return make(folder)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
    tried = "; ".join(reasons) or "there is no temporary folder"
    raise StartError(f"there is no room for {what} ({tried}); set TMPDIR to a folder that can be written")


def heartbeat_folder() -> str | None:
    """The folder in memory if files can be made there; None: Gunicorn's default."""
    try:
        with tempfile.TemporaryFile(dir=SHARED_MEMORY):
            return str(SHARED_MEMORY)
    except OSError:
        return None


def reserve(fd: int, num_bytes: int) -> None:
    """Fill the new file with zeros. Raises OSError where they do not fit."""
    zeros = memoryview(bytes(num_bytes))
    while zeros:
        zeros = zeros[os.write(fd, zeros) :]


def anonymous_file(folder: Path, num_bytes: int) -> int:
    """A reserved file without a name; returns its descriptor. Raises OSError."""
    fd, name = tempfile.mkstemp(prefix="forklift-board-", dir=folder)
    try:
        Path(name).unlink()
        reserve(fd, num_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd
