"""What all workers of a server share about its place in a registry: who speaks for it, and how that goes.

Made by the master before it forks. One worker leads: it holds an ``fcntl`` lock on a byte of a file without a name,
which the kernel releases when it dies. One that is stopped is passed over: the lock moves to the next byte, for all, as
that of the slot board does. The numbers are written by the leader and read by any worker, for probes and metrics.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import uuid
import weakref
from collections.abc import Callable

from app.serve.board import shared_files


class _Shared(ctypes.Structure):
    term: int
    leader_pid: int
    is_connected: int
    is_announced: int
    num_writes: int

    _fields_ = [
        ("term", ctypes.c_uint32),
        ("leader_pid", ctypes.c_int32),
        ("is_connected", ctypes.c_uint8),
        ("is_announced", ctypes.c_uint8),
        ("num_writes", ctypes.c_uint64),
    ]


class Registration:
    """``server_id`` names the server in the registry, whichever worker speaks for it."""

    def __init__(self) -> None:
        self.server_id = uuid.uuid4().hex
        size_bytes = ctypes.sizeof(_Shared)
        self._fd = shared_files.make_in_first(
            lambda folder: shared_files.anonymous_file(folder, size_bytes), "the place in the registry"
        )
        weakref.finalize(self, os.close, self._fd)
        self._shared = _Shared.from_buffer(mmap.mmap(self._fd, size_bytes))
        self._held: int | None = None

    def is_mine(self, is_silent: Callable[[int], bool]) -> bool:
        """Whether this process leads; it does from now on where nobody does. On one thread of a process.

        ``is_silent`` tells of a process id whether that worker does not run.
        """
        term = int(self._shared.term)
        if self._held is not None and self._held != term:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._held)
            self._held = None
        if self._held is None and self._has_locked(term):
            self._held = term
            self._shared.leader_pid = os.getpid()
        if self._held is None and is_silent(int(self._shared.leader_pid)):
            self._shared.term = term + 1
        return self._held is not None

    def _has_locked(self, term: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, term)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def note(self, *, is_connected: bool, is_announced: bool) -> None:
        """How it stands now; the leader calls."""
        self._shared.is_connected, self._shared.is_announced = is_connected, is_announced

    def count_writes(self, num_writes: int) -> None:
        """So often more the registry was written to."""
        self._shared.num_writes += num_writes

    @property
    def is_connected(self) -> bool:
        """Whether the registry answers."""
        return bool(self._shared.is_connected)

    @property
    def is_announced(self) -> bool:
        """Whether the server stands in it."""
        return bool(self._shared.is_announced)

    @property
    def num_writes(self) -> int:
        """Nodes made, changed and removed since the start."""
        return int(self._shared.num_writes)
