"""Places for requests, counted over all workers: who may wait, who runs, who is refused.

HTTP threads enter before the prompt is tokenized; the inference thread moves a place from waiting
to running; whoever ends the request releases it. The counts lie on the slot board, so they are
exact over all processes, and the master clears those of a worker that was killed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.core.errors import LoadingError, OverloadedError, shutting_down
from app.core.settings import Settings
from app.serve.board import STATES, Row, SlotBoard

# Weight of the newest sample: the mean follows a change of load within about ten requests.
SERVICE_TIME_WEIGHT = 0.2
LOADING_RETRY_AFTER_S = 5


class Hold:
    """One accepted connection that counts as load until its request gets a place or it is dropped."""

    def __init__(self, board: SlotBoard, row: Row):
        """Count the connection; the caller is inside ``board.locked``."""
        self._board = board
        self._row = row
        self._lease = row.lease
        self.is_held = True
        row.num_connections += 1

    def drop(self) -> None:
        """Stop counting; harmless when repeated."""
        with self._board.locked():
            self.drop_locked()

    def drop_locked(self) -> None:
        if self.is_held and self._row.lease == self._lease:
            self._row.num_connections -= 1
        self.is_held = False


class Place:
    """One request's right to wait or run. ``release`` exactly counts once, from any thread."""

    def __init__(self, board: SlotBoard, row: Row):
        """Start waiting; the caller is inside ``board.locked``."""
        self._board = board
        self._row = row
        self._lease = row.lease
        self._started_s: float | None = None
        self._is_released = False
        row.num_waiting += 1

    def start(self) -> None:
        """The request leaves the queue; does nothing once released or started."""
        with self._board.locked():
            if self._is_released or self._started_s is not None:
                return
            self._started_s = time.monotonic()
            if self._is_counted:
                self._row.num_waiting -= 1
                self._row.num_running += 1

    def release(self) -> None:
        """Give the place back; harmless when repeated."""
        with self._board.locked():
            if self._is_released:
                return
            self._is_released = True
            if self._is_counted:
                self._uncount()

    @property
    def is_lost(self) -> bool:
        """Whether this worker is given up: its inference thread will not end the request."""
        return self._is_counted and STATES[self._row.state] == "failed"

    def _uncount(self) -> None:
        if self._started_s is None:
            self._row.num_waiting -= 1
            return
        self._row.num_running -= 1
        sample_s = time.monotonic() - self._started_s
        mean_s = self._row.service_s
        self._row.service_s = mean_s + SERVICE_TIME_WEIGHT * (sample_s - mean_s) if mean_s else sample_s

    @property
    def _is_counted(self) -> bool:
        """False once the master has cleared the row of a worker that it believes dead."""
        return self._row.lease == self._lease


class Admission:
    """The door of one worker; ``slot`` is None as long as the worker has none."""

    def __init__(self, settings: Settings, board: SlotBoard, slot: int | None):
        self.slot = slot
        self._board = board
        self._num_lanes_each = settings.num_lanes
        self._max_queue = settings.max_queue
        self._carried = threading.local()

    def enter(self, limit_s: float | None = None) -> Place:
        """A waiting place for one request that may take ``limit_s`` seconds at most.

        Raises ``OverloadedError``, ``LoadingError`` or ``ShuttingDownError``, each with the whole
        seconds after which to try again.
        """
        with self._board.locked() as rows:
            row = self._own_row(rows)
            wait_s = expected_wait_s(num_places_taken(rows), self._num_lanes(rows), mean_service_s(rows))
            if self.is_full(rows):
                raise OverloadedError("the server is overloaded", retry_after_s=max(1, math.ceil(wait_s)))
            if limit_s is not None and limit_s < wait_s:
                raise OverloadedError(
                    "the request would wait longer than its time limit", retry_after_s=max(1, math.ceil(wait_s))
                )
            self._drop_carried()
            return Place(self._board, row)

    def is_full(self, rows: Sequence[Row]) -> bool:
        """Whether one more request would be refused, whichever worker accepts it."""
        return num_places_taken(rows) >= self._num_lanes(rows) + self._max_queue

    def _num_lanes(self, rows: Sequence[Row]) -> int:
        now_s = time.monotonic()
        return self._num_lanes_each * sum(row.is_ready and not row.is_silent(now_s) for row in rows)

    @contextmanager
    def carrying(self, hold: Hold) -> Iterator[None]:
        """While this thread serves ``hold``'s connection: a place that it enters replaces the hold."""
        self._carried.hold = hold
        try:
            yield
        finally:
            self._carried.hold = None
            hold.drop()

    def _own_row(self, rows: Sequence[Row]) -> Row:
        row = None if self.slot is None else rows[self.slot]
        if row is None or STATES[row.state] in ("loading", "failed"):
            raise LoadingError("the model is not ready", retry_after_s=LOADING_RETRY_AFTER_S)
        if STATES[row.state] == "draining":
            raise shutting_down()
        return row

    def _drop_carried(self) -> None:
        hold: Hold | None = getattr(self._carried, "hold", None)
        if hold is not None:
            hold.drop_locked()


def num_places_taken(rows: Sequence[Row]) -> int:
    """Requests that run or wait, over all workers."""
    return sum(row.num_running + row.num_waiting for row in rows)


def mean_service_s(rows: Sequence[Row]) -> float:
    """Mean seconds from start to release over the ready workers; 0 before the first request ended."""
    known = [row.service_s for row in rows if row.is_ready and row.service_s]
    return sum(known) / len(known) if known else 0.0


def expected_wait_s(num_places_taken: int, num_lanes: int, service_s: float) -> float:
    """Seconds until one more request would start: a lane becomes free every ``service_s / num_lanes``."""
    if num_places_taken < num_lanes or not num_lanes:
        return 0.0
    return (num_places_taken - num_lanes + 1) * service_s / num_lanes
