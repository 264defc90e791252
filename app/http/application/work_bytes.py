"""How many bytes of bodies one worker has in hand: read, parsed and tokenized they take several times their size.

HTTP threads. A body counts until its answer has ended; behind large ones the C library's free memory goes back.
"""

from __future__ import annotations

import threading
from functools import partial

from flask import Flask, Response, current_app, g

from app.core.errors import OverloadedError
from app.core.system.memory.heap import trim_heap
from app.http.application.request_log import emit_at_end

LEAST_LIMIT_BYTES = 32 * 2**20
# As many bodies of the largest size may be in work together, at least.
NUM_LARGEST = 4
LARGE_BYTES = 2**17
# Many large requests one after another give memory back together.
TRIM_AFTER_S = 2.0
EXTENSION = "forklift_work_bytes"


class WorkBytes:
    """Counts bytes in work; ``limit`` is for all requests of this worker together."""

    def __init__(self, limit: int, trim_after_s: float = TRIM_AFTER_S):
        self.limit = limit
        self.taken = 0
        self._trim_after_s = trim_after_s
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self, size: int) -> None:
        """Raise ``OverloadedError`` where the worker has too much in hand."""
        with self._lock:
            if self.taken + size > self.limit:
                raise OverloadedError("the server has too many bytes of requests in hand")
            self.taken += size

    def give_back(self, size: int) -> None:
        """A body is done with. Memory goes back soon where it was large; at once where no thread can be started."""
        with self._lock:
            self.taken -= size
            if size < LARGE_BYTES or self._timer is not None:
                return
            self._timer = self._started_timer()
            is_waiting = self._timer is not None
        if not is_waiting:
            trim_heap()

    def _started_timer(self) -> threading.Timer | None:
        """None where the machine has no thread to give."""
        timer = threading.Timer(self._trim_after_s, self._trim)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            return None
        return timer

    def _trim(self) -> None:
        with self._lock:
            self._timer = None
        trim_heap()


def limit_of(max_body_bytes: int) -> int:
    """Bytes that one door's requests may have in hand together."""
    return max(LEAST_LIMIT_BYTES, NUM_LARGEST * max_body_bytes)


def init_app(app: Flask, max_body_bytes: int) -> None:
    """Count the bodies of ``app``'s requests."""
    app.extensions[EXTENSION] = WorkBytes(limit_of(max_body_bytes))

    @app.after_request
    def give_back(response: Response) -> Response:
        size: int = g.pop("work_bytes", 0)
        if size:
            emit_at_end(response, partial(app.extensions[EXTENSION].give_back, size))
        return response


def count(size: int) -> None:
    """This request has read a body of ``size`` bytes. Raises ``OverloadedError``."""
    work: WorkBytes = current_app.extensions[EXTENSION]
    if "work_bytes" not in g:
        work.take(size)
        g.work_bytes = size
