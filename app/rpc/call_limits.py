"""Ends what takes too long of a call: its message, the reading of an answer, another worker's first word. Any thread.

gRPC's own server waits for a caller without a limit, and each call that it waits for holds a thread. One thread looks
at all of them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

PERIOD_S = 0.1
# Messages that are waited for together; where there are more, the oldest gives way.
NUM_READERS = 64


class Cancellable(Protocol):
    """A call, ours or to another worker."""

    def cancel(self) -> object: ...


@dataclass(slots=True)
class Wait:
    """Something that is waited for until ``until_s``."""

    call: Cancellable
    until_s: float
    was_ended: bool = False

    def end(self) -> None:
        self.was_ended = True
        self.call.cancel()


class CallLimits:
    """What is waited for at the moment."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waits: dict[int, Wait] = {}
        self._readers: dict[int, Wait] = {}
        self._has_ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="rpc-limits", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._has_ended.set()

    @contextmanager
    def of(self, call: Cancellable, limit_s: float) -> Iterator[Wait]:
        """Within the block ``call`` is cancelled after ``limit_s``; the ``Wait`` then says so."""
        number, wait = next(self._numbers), Wait(call, time.monotonic() + limit_s)
        with self._lock:
            self._waits[number] = wait
        try:
            yield wait
        finally:
            with self._lock:
                del self._waits[number]

    @contextmanager
    def reading(self, call: Cancellable, limit_s: float) -> Iterator[Wait]:
        """The same for a caller's message: one of ``NUM_READERS``."""
        with self.of(call, limit_s) as wait:
            number = next(self._numbers)
            with self._lock:
                self._readers[number] = wait
                oldest = self._readers.pop(next(iter(self._readers))) if len(self._readers) > NUM_READERS else None
            if oldest is not None:
                oldest.end()
            try:
                yield wait
            finally:
                with self._lock:
                    self._readers.pop(number, None)

    def _run(self) -> None:
        while not self._has_ended.wait(PERIOD_S):
            self.look(time.monotonic())

    def look(self, now_s: float) -> None:
        """End what is overdue."""
        with self._lock:
            overdue = [wait for wait in self._waits.values() if now_s >= wait.until_s and not wait.was_ended]
        for wait in overdue:
            wait.end()
