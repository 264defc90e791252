"""Standard error that never blocks: what its reader does not take waits within a bound, and what is beyond is counted.

A pipe that nobody reads, or a terminal that is held, stops whoever writes to it. Each process therefore has a thread
that writes; files are written directly, for they do not block. Any process, any thread.
"""

from __future__ import annotations

import atexit
import os
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, TextIO

MAX_WAITING_BYTES = 1_048_576
# What a process that ends gives its log; a reader that is there needs a fraction of it.
DRAIN_S = 0.5


class LogWriter:
    """Takes the place of ``stream``. Everything beside writing is left to that."""

    def __init__(self, stream: TextIO, fd: int):
        self._stream = stream
        self._fd = fd
        self._num_lost = 0
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)
        atexit.register(self.drain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Have ``text`` written soon, or count it as lost. Returns its length, as streams do."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._num_bytes + len(data) > MAX_WAITING_BYTES:
                self._num_lost += 1
                return len(text)
            self._waiting.append(data)
            self._num_bytes += len(data)
            self._require_thread()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nobody waits for what may never end; see ``drain``."""

    def drain(self, limit_s: float = DRAIN_S) -> None:
        """Wait until all is written, for ``limit_s`` at most."""
        end_s = time.monotonic() + limit_s
        with self._changed:
            while self._num_bytes and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def take_num_lost(self) -> int:
        """How many writes were lost since this was last asked."""
        with self._changed:
            num_lost, self._num_lost = self._num_lost, 0
        return num_lost

    def _start_anew(self) -> None:
        """A forked process has neither the thread nor, in what waits, anything of its own."""
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._num_bytes = 0
        self._thread: threading.Thread | None = None

    def _require_thread(self) -> None:
        if self._thread is None:
            # Without a thread now, the next line tries again.
            with suppress(RuntimeError):
                thread = threading.Thread(target=self._run, name="log", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                data = self._waiting.popleft()
            is_written = self._write(data)
            with self._changed:
                self._num_bytes -= len(data)
                self._num_lost += not is_written
                self._changed.notify_all()

    def _write(self, data: bytes) -> bool:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            return False
        return True


_writer: LogWriter | None = None


def never_blocking(stream: TextIO) -> TextIO:
    """A stream that writes where ``stream`` does and never blocks; ``stream`` itself where it is a file or no
    descriptor."""
    global _writer
    try:
        fd = stream.fileno()
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
    except (OSError, ValueError, AttributeError):
        return stream
    if is_file:
        return stream
    if _writer is None:
        _writer = LogWriter(stream, fd)
    writer: Any = _writer
    return writer  # type: ignore[no-any-return]


def drain() -> None:
    """Give what waits a moment to be written: the process ends."""
    if _writer is not None:
        _writer.drain()


def take_num_lost() -> int:
    """Lines that this process has lost since this was last asked."""
    return 0 if _writer is None else _writer.take_num_lost()
