"""Places for sequences, counted over all workers: who may wait, who runs, who is refused.

HTTP threads enter before the prompt is tokenized; the inference thread moves a place from waiting
to running; whoever ends the request releases it. The counts lie on the slot board, so they are
exact over all processes, and the master clears those of a worker that was killed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

from app.core.errors import InvalidParameterError, LoadingError, OverloadedError, shutting_down
from app.core.settings import Settings
from app.core.states import WORKER_STATES
from app.serve.board.slot_board import BoardEntry, SlotBoard

# Weight of the newest sample: the mean follows a change of load within about ten requests.
SERVICE_TIME_WEIGHT = 0.2


class ConnectionTicket:
    """One accepted connection, or one call over gRPC, that counts as load until its request gets a place or it is
    dropped."""

    def __init__(self, board: SlotBoard, row: BoardEntry, is_call: bool = False):
        """Count it; the caller is inside ``board.locked``."""
        self._board = board
        self._row = row
        self._lease = row.lease
        self._is_call = is_call
        self.is_held = True
        row.num_connections += 1
        row.num_calls += is_call

    def drop(self) -> None:
        """Stop counting; harmless when repeated."""
        with self._board.locked():
            self.drop_locked()

    def drop_locked(self) -> None:
        if self.is_held and self._row.lease == self._lease:
            self._row.num_connections -= 1
            self._row.num_calls -= self._is_call
        self.is_held = False


class RequestTicket:
    """One request's right to wait and run, as many places as it has sequences; from any thread.

    ``release`` gives all of them back, each exactly once.
    """

    def __init__(self, board: SlotBoard, row: BoardEntry, num_sequences: int = 1):
        """Start waiting; the caller is inside ``board.locked``."""
        self._board = board
        self._row = row
        self._lease = row.lease
        self._num_waiting = num_sequences
        self._started_s: deque[float] = deque()
        row.num_waiting += num_sequences

    def start(self) -> None:
        """A sequence leaves the queue; does nothing once all have."""
        with self._board.locked():
            if not self._num_waiting:
                return
            self._num_waiting -= 1
            self._started_s.append(time.monotonic())
            if self._is_counted:
                self._row.num_waiting -= 1
                self._row.num_running += 1

    def keep(self, num_sequences: int) -> None:
        """No more than so many sequences are left; harmless when repeated."""
        with self._board.locked():
            while len(self._started_s) + self._num_waiting > num_sequences:
                if self._started_s:
                    self._end_running(self._started_s.popleft())
                else:
                    self._num_waiting -= 1
                    self._row.num_waiting -= self._is_counted

    def release(self) -> None:
        """Give every place back; harmless when repeated."""
        self.keep(0)

    @property
    def is_lost(self) -> bool:
        """Whether this worker is given up: its inference thread will not end the request."""
        return self._is_counted and WORKER_STATES[self._row.state] == "failed"

    def _end_running(self, started_s: float) -> None:
        if not self._is_counted:
            return
        self._row.num_running -= 1
        sample_s = time.monotonic() - started_s
        mean_s = self._row.service_s
        self._row.service_s = mean_s + SERVICE_TIME_WEIGHT * (sample_s - mean_s) if mean_s else sample_s

    @property
    def _is_counted(self) -> bool:
        """False once the master has cleared the row of a worker that it believes dead."""
        return self._row.lease == self._lease


class Admission:
    """Admits requests to one worker; ``slot`` is None as long as the worker has none."""

    def __init__(self, settings: Settings, board: SlotBoard, slot: int | None):
        self.slot = slot
        self._board = board
        self._max_running_each = settings.max_running
        self._max_queue = settings.max_queue

    def enter(
        self, limit_s: float | None = None, num_sequences: int = 1, connection: ConnectionTicket | None = None
    ) -> RequestTicket:
        """Waiting places for the sequences of one request that may take ``limit_s`` seconds at most.

        They replace what ``connection``, by which the request came, counts.

        Raises ``InvalidParameterError`` where there will never be so many, and ``OverloadedError``,
        ``LoadingError`` or ``ShuttingDownError``, each with the whole seconds after which to try again.
        """
        with self._board.locked() as rows:
            row = self._own_row(rows)
            self._require_possible(num_sequences, len(rows))
            wait_s = expected_wait_s(num_places_taken(rows), self._max_running(rows), mean_service_s(rows))
            if num_places_taken(rows) + num_sequences > self._num_places(rows):
                raise OverloadedError("the server is overloaded", retry_after_s=math.ceil(wait_s))
            if limit_s is not None and limit_s < wait_s:
                raise OverloadedError(
                    "the request would wait longer than its time limit", retry_after_s=math.ceil(wait_s)
                )
            if connection is not None:
                connection.drop_locked()
            return RequestTicket(self._board, row, num_sequences)

    def load(self) -> tuple[int, int]:
        """Sequences in hand over all workers, and how many there may be; without keeping anyone out."""
        rows = self._board.glance()
        return num_places_taken(rows), self._num_places(rows)

    def is_full(self, rows: Sequence[BoardEntry]) -> bool:
        """Whether one more request would be refused, whichever worker accepts it."""
        return num_places_taken(rows) >= self._num_places(rows)

    def _require_possible(self, num_sequences: int, num_workers: int) -> None:
        """What no free server could take is a fault of the request, not overload."""
        num_places = num_workers * self._max_running_each + self._max_queue
        if num_sequences > num_places:
            raise InvalidParameterError(
                f"the request has {num_sequences} sequences (prompts times completions), and this server has room for "
                f"{num_places}: FORKLIFT_MAX_BATCH_SIZE per worker and FORKLIFT_MAX_QUEUE"
            )

    def _num_places(self, rows: Sequence[BoardEntry]) -> int:
        return self._max_running(rows) + self._max_queue

    def _max_running(self, rows: Sequence[BoardEntry]) -> int:
        now_s = time.monotonic()
        return self._max_running_each * sum(row.is_ready and not row.is_silent(now_s) for row in rows)

    def _own_row(self, rows: Sequence[BoardEntry]) -> BoardEntry:
        row = None if self.slot is None else rows[self.slot]
        if row is None or WORKER_STATES[row.state] in ("loading", "failed"):
            raise LoadingError("the model is not ready")
        if WORKER_STATES[row.state] == "draining":
            raise shutting_down()
        return row


def num_places_taken(rows: Sequence[BoardEntry]) -> int:
    """Sequences that run or wait, over all workers."""
    return sum(row.num_running + row.num_waiting for row in rows)


def mean_service_s(rows: Sequence[BoardEntry]) -> float:
    """Mean seconds from start to release over the ready workers; 0 before the first request ended."""
    known = [row.service_s for row in rows if row.is_ready and row.service_s]
    return sum(known) / len(known) if known else 0.0


def expected_wait_s(num_places_taken: int, max_running: int, service_s: float) -> float:
    """Seconds until one more request would start: one that runs ends every ``service_s / max_running``."""
    if num_places_taken < max_running or not max_running:
        return 0.0
    return (num_places_taken - max_running + 1) * service_s / max_running
