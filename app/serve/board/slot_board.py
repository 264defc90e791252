"""The slot board: one row per worker slot, in memory that all processes of one server share.

Made by the master before it forks; read and written by the master's hooks and by every thread of
every worker. Knows neither GPUs nor requests: it holds leases, states and counters.

The lock has two parts, because ``lockf`` belongs to a process and not to a thread: a thread lock
inside the process, and the file lock between processes, which the kernel releases when its holder
dies. It must never be taken in a signal handler: the thread below may hold it.

A holder can also be stopped (SIGSTOP, a debugger). Nobody waits for that one longer than ``LOCK_LIMIT_S``: the lock
moves on to the next byte of the file, for all. That is safe because a worker writes to its own row only; what may go
wrong while it goes on is a count that is one too high. Readers do without the lock where they do not get it at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.core.logs.logging import get_logger
from app.core.states import WORKER_STATES, WorkerState
from app.serve.board import shared_files

# A block under the lock takes microseconds; only a holder that does not run takes this long.
LOCK_LIMIT_S = 0.25
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.00005, 0.002
# How long a reader tries for the lock before it reads without.
GLANCE_S = 0.01
# Workers tell at least once a second that they run.
SILENT_AFTER_S = 3.0
log = get_logger("serve")


class BoardEntry(ctypes.Structure):
    """One slot as it lies in shared memory; touch it only inside ``SlotBoard.locked``.

    ``lease`` is 0 while the slot is free, ``pid`` 0 until the worker has told it.
    ``num_connections`` counts accepted connections and calls whose request has no place yet, ``num_calls`` the calls
    among them: a connection may be a probe's, a call wants a place.
    ``num_fast_deaths`` and ``num_restarts`` outlive the lease.
    """

    lease: int
    pid: int
    state: int
    progress: float
    num_running: int
    num_waiting: int
    num_connections: int
    num_calls: int
    service_s: float
    num_fast_deaths: int
    num_restarts: int
    kv_cache_max_bytes: int
    seen_s: float

    _fields_ = [
        ("lease", ctypes.c_uint64),
        ("pid", ctypes.c_int32),
        ("state", ctypes.c_int32),
        ("progress", ctypes.c_double),
        ("num_running", ctypes.c_int32),
        ("num_waiting", ctypes.c_int32),
        ("num_connections", ctypes.c_int32),
        ("num_calls", ctypes.c_int32),
        ("service_s", ctypes.c_double),
        ("num_fast_deaths", ctypes.c_int32),
        ("num_restarts", ctypes.c_int32),
        ("kv_cache_max_bytes", ctypes.c_uint64),
        ("seen_s", ctypes.c_double),
    ]

    def is_silent(self, now_s: float) -> bool:
        """Whether a worker that used to say that it runs has not for a while: it is stopped, or about to be killed."""
        return 0.0 < self.seen_s < now_s - SILENT_AFTER_S

    @property
    def is_ready(self) -> bool:
        return self.lease != 0 and WORKER_STATES[self.state] == "ready"

    @property
    def load(self) -> int:
        """Requests in hand, each counted once: running, waiting, or accepted a moment ago."""
        return self.num_running + self.num_waiting + self.num_connections

    def clear(self) -> None:
        """No lease, no work; the counts of deaths stay."""
        self.lease = self.pid = self.state = 0
        self.num_running = self.num_waiting = self.num_connections = self.num_calls = 0
        self.progress = self.service_s = self.seen_s = 0.0
        self.kv_cache_max_bytes = 0


class _Header(ctypes.Structure):
    num_leases: int
    was_ever_ready: int
    is_halting: int
    num_broken_locks: int

    _fields_ = [
        ("num_leases", ctypes.c_uint64),
        ("was_ever_ready", ctypes.c_uint8),
        ("is_halting", ctypes.c_uint8),
        ("num_broken_locks", ctypes.c_uint32),
    ]


@dataclass(frozen=True, slots=True)
class SlotState:
    """One slot at one moment, as ``/readyz`` shows it; ``pid`` is None while no worker has it."""

    slot: int
    pid: int | None
    gpus: tuple[str, ...]
    state: WorkerState
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
        size_bytes = header_bytes + len(self.gpus) * ctypes.sizeof(BoardEntry)
        self._fd = shared_files.make_in_first(
            lambda folder: shared_files.anonymous_file(folder, size_bytes), "the slot board"
        )
        weakref.finalize(self, os.close, self._fd)
        shared = mmap.mmap(self._fd, size_bytes)
        self._header = _Header.from_buffer(shared)
        self._rows = list((BoardEntry * len(self.gpus)).from_buffer(shared, header_bytes))
        self._thread_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.gpus)

    @contextmanager
    def locked(self) -> Iterator[list[BoardEntry]]:
        """The rows, with every other thread and process kept out. Keep the block short."""
        with self._thread_lock:
            at = self._lock()
            try:
                yield self._rows
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)

    def _lock(self) -> int:
        """Take the file lock; returns which byte it is. After ``LOCK_LIMIT_S`` the holder is passed over."""
        pause_s, until_s = FIRST_PAUSE_S, time.monotonic() + LOCK_LIMIT_S
        while True:
            at = int(self._header.num_broken_locks)
            if self._has_locked(at):
                return at
            if time.monotonic() >= until_s:
                log.warning("board_lock_broken", reason="its holder does not run")
                self._header.num_broken_locks = at + 1
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _has_locked(self, at: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except (BlockingIOError, PermissionError):
            return False
        if at == self._header.num_broken_locks:
            return True
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)
        return False

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
        return next((slot for slot, row in enumerate(self._rows) if row.lease and row.pid == pid), None)

    def free(self, slot: int) -> None:
        """Give the slot back and forget what its worker had in hand."""
        with self.locked() as rows:
            rows[slot].clear()

    def count_death(self, slot: int, is_fast: bool) -> int:
        """Note that the slot's worker died; returns how many fast deaths in a row that makes."""
        with self.locked() as rows:
            rows[slot].num_restarts += WORKER_STATES[rows[slot].state] != "draining"
            rows[slot].num_fast_deaths = rows[slot].num_fast_deaths + 1 if is_fast else 0
            return rows[slot].num_fast_deaths

    def num_fast_deaths(self, slot: int) -> int:
        return int(self._rows[slot].num_fast_deaths)

    # states

    def set_state(self, slot: int, state: WorkerState, progress: float = 0.0) -> None:
        """Tell all processes how far this slot's worker is. Draining lasts until the lease ends."""
        with self.locked() as rows:
            if WORKER_STATES[rows[slot].state] != "draining":
                rows[slot].state, rows[slot].progress = WORKER_STATES.index(state), progress
            if state == "ready":
                self._header.was_ever_ready = 1

    def note_alive(self, slot: int, now_s: float) -> None:
        """This slot's worker runs; ``now_s`` is ``time.monotonic()``, which is one clock for all processes."""
        self._rows[slot].seen_s = now_s

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

    def rows(self) -> list[SlotState]:
        """All slots as of now, lowest first: of one moment, unless the lock's holder does not run."""
        with self._glance():
            return [self._snapshot(slot, row) for slot, row in enumerate(self._rows)]

    def glance(self) -> list[BoardEntry]:
        """The rows as they are, with nobody kept out: for numbers that may be one off."""
        return self._rows

    @contextmanager
    def _glance(self) -> Iterator[None]:
        """Keep others out if that takes no time; else go on without."""
        has_thread_lock = self._thread_lock.acquire(timeout=GLANCE_S)
        at = int(self._header.num_broken_locks)
        has_file_lock = has_thread_lock and self._has_soon(at)
        try:
            yield
        finally:
            if has_file_lock:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)
            if has_thread_lock:
                self._thread_lock.release()

    def _has_soon(self, at: int) -> bool:
        until_s = time.monotonic() + GLANCE_S
        while not (found := self._has_locked(at)) and time.monotonic() < until_s:
            time.sleep(FIRST_PAUSE_S)
        return found

    def _snapshot(self, slot: int, row: BoardEntry) -> SlotState:
        return SlotState(
            slot,
            row.pid or None,
            self.gpus[slot],
            WORKER_STATES[row.state],
            row.progress,
            row.num_running,
            row.num_waiting,
            row.num_connections,
            row.num_restarts,
            row.kv_cache_max_bytes,
        )
