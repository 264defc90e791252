"""The slot board: one row per worker slot, in memory that all processes of one server share.

Made by the master before it forks; read and written by the master's hooks and by every thread of
every worker. Knows neither GPUs nor requests: it holds leases, states and counters.

The lock has two parts, because ``lockf`` belongs to a process and not to a thread: a thread lock
inside the process, and the file lock between processes, which the kernel releases when its holder
dies. It must never be taken in a signal handler: the thread below may hold it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from app.serve.context import State

SHARED_MEMORY = Path("/dev/shm")
STATES: tuple[State, ...] = get_args(State)


class Row(ctypes.Structure):
    """One slot as it lies in shared memory; touch it only inside ``SlotBoard.locked``.

    ``lease`` is 0 while the slot is free, ``pid`` 0 until the worker has told it.
    ``num_connections`` counts accepted connections whose request has no place yet.
    ``num_fast_deaths`` and ``num_restarts`` outlive the lease.
    """

    lease: int
    pid: int
    state: int
    progress: float
    num_running: int
    num_waiting: int
    num_connections: int
    service_s: float
    num_fast_deaths: int
    num_restarts: int
    kv_cache_max_bytes: int

    _fields_ = [
        ("lease", ctypes.c_uint64),
        ("pid", ctypes.c_int32),
        ("state", ctypes.c_int32),
        ("progress", ctypes.c_double),
        ("num_running", ctypes.c_int32),
        ("num_waiting", ctypes.c_int32),
        ("num_connections", ctypes.c_int32),
        ("service_s", ctypes.c_double),
        ("num_fast_deaths", ctypes.c_int32),
        ("num_restarts", ctypes.c_int32),
        ("kv_cache_max_bytes", ctypes.c_uint64),
    ]

    @property
    def is_ready(self) -> bool:
        return self.lease != 0 and STATES[self.state] == "ready"

    @property
    def load(self) -> int:
        """Requests in hand, each counted once: running, waiting, or accepted a moment ago."""
        return self.num_running + self.num_waiting + self.num_connections

    def clear(self) -> None:
        """No lease, no work; the counts of deaths stay."""
        self.lease = self.pid = self.state = 0
        self.num_running = self.num_waiting = self.num_connections = 0
        self.progress = self.service_s = 0.0
        self.kv_cache_max_bytes = 0


class _Header(ctypes.Structure):
    num_leases: int
    was_ever_ready: int
    is_halting: int

    _fields_ = [
        ("num_leases", ctypes.c_uint64),
        ("was_ever_ready", ctypes.c_uint8),
        ("is_halting", ctypes.c_uint8),
    ]


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot at one moment, as ``/readyz`` shows it; ``pid`` is None while no worker has it."""

    slot: int
    pid: int | None
    gpus: tuple[str, ...]
    state: State
    progress: float
    num_running: int
    num_waiting: int
    num_connections: int
    num_restarts: int = 0
    kv_cache_max_bytes: int = 0


class SlotBoard:
    """Leases of slots, and what the worker of each slot is doing.

    ``gpus`` holds one tuple of GPU labels per slot; its length is the number of slots.
    """

    def __init__(self, gpus: Sequence[tuple[str, ...]]):
        self.gpus = tuple(gpus)
        header_bytes = ctypes.sizeof(_Header)
        size_bytes = header_bytes + len(self.gpus) * ctypes.sizeof(Row)
        self._fd = _anonymous_file(size_bytes)
        weakref.finalize(self, os.close, self._fd)
        memory = mmap.mmap(self._fd, size_bytes)
        self._header = _Header.from_buffer(memory)
        self._rows = list((Row * len(self.gpus)).from_buffer(memory, header_bytes))
        self._thread_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.gpus)

    @contextmanager
    def locked(self) -> Iterator[list[Row]]:
        """The rows, with every other thread and process kept out. Keep the block short."""
        with self._thread_lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield self._rows
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    # leases: the master, or a worker that was born without a slot

    def lease(self, pid: int = 0) -> int | None:
        """Take the lowest free slot; None when all are taken."""
        with self.locked() as rows:
            free = next((slot for slot, row in enumerate(rows) if not row.lease), None)
            if free is not None:
                self._header.num_leases += 1
                rows[free].clear()
                rows[free].lease, rows[free].pid = self._header.num_leases, pid
            return free

    def set_pid(self, slot: int, pid: int) -> None:
        with self.locked() as rows:
            rows[slot].pid = pid

    def slot_of(self, pid: int) -> int | None:
        """The slot that the process ``pid`` holds."""
        with self.locked() as rows:
            return next((slot for slot, row in enumerate(rows) if row.lease and row.pid == pid), None)

    def free(self, slot: int) -> None:
        """Give the slot back and forget what its worker had in hand."""
        with self.locked() as rows:
            rows[slot].clear()

    def count_death(self, slot: int, is_fast: bool) -> int:
        """Note that the slot's worker died; returns how many fast deaths in a row that makes."""
        with self.locked() as rows:
            rows[slot].num_restarts += STATES[rows[slot].state] != "draining"
            rows[slot].num_fast_deaths = rows[slot].num_fast_deaths + 1 if is_fast else 0
            return rows[slot].num_fast_deaths

    def num_fast_deaths(self, slot: int) -> int:
        with self.locked() as rows:
            return rows[slot].num_fast_deaths

    # states

    def set_state(self, slot: int, state: State, progress: float = 0.0) -> None:
        """Tell all processes how far this slot's worker is. Draining lasts until the lease ends."""
        with self.locked() as rows:
            if STATES[rows[slot].state] != "draining":
                rows[slot].state, rows[slot].progress = STATES.index(state), progress
            if state == "ready":
                self._header.was_ever_ready = 1

    def set_kv_cache_max_bytes(self, slot: int, num_bytes: int) -> None:
        with self.locked() as rows:
            rows[slot].kv_cache_max_bytes = num_bytes

    @property
    def was_ever_ready(self) -> bool:
        """Whether any worker of this server was ready at any time."""
        return bool(self._header.was_ever_ready)

    def claim_halt(self) -> bool:
        """True for the one worker that may stop the server and print why."""
        with self.locked():
            is_first = not self._header.was_ever_ready and not self._header.is_halting
            self._header.is_halting = 1
            return is_first

    def rows(self) -> list[SlotRow]:
        """All slots as of now, lowest first."""
        with self.locked() as rows:
            return [self._snapshot(slot, row) for slot, row in enumerate(rows)]

    def _snapshot(self, slot: int, row: Row) -> SlotRow:
        return SlotRow(
            slot,
            row.pid or None,
            self.gpus[slot],
            STATES[row.state],
            row.progress,
            row.num_running,
            row.num_waiting,
            row.num_connections,
            row.num_restarts,
            row.kv_cache_max_bytes,
        )


def memory_folder() -> Path | None:
    """Where files lie in memory; None where the machine has no such folder."""
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None


def _anonymous_file(size_bytes: int) -> int:
    """A file without a name, in memory where that is possible; returns its descriptor."""
    fd, name = tempfile.mkstemp(prefix="forklift-board-", dir=memory_folder())
    Path(name).unlink()
    os.truncate(fd, size_bytes)
    return fd
