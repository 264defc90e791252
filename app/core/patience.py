"""Whether a request has had its time: every 504 is made here.

``overdue`` decides, for HTTP threads and the inference thread; ``patient_until`` carries the deadline of the request
that an HTTP thread works on to whatever waits or works long for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.core.errors import DeadlineError, QueueTimeoutError, RequestTimeoutError

_until_s: ContextVar[float] = ContextVar("until_s", default=float("inf"))


def overdue(now_s: float, deadline_s: float, queue_deadline_s: float = float("inf")) -> DeadlineError | None:
    """The error of a request whose time is up, or None. Points are ``time.monotonic()`` seconds.

    ``queue_deadline_s`` is for one that has not been started.
    """
    if now_s >= deadline_s:
        return too_late()
    if now_s >= queue_deadline_s:
        return QueueTimeoutError("the request waited in the queue longer than its time limit")
    return None


@contextmanager
def patient_until(until_s: float) -> Iterator[None]:
    """Inside the block this thread's work is to end by ``until_s`` on ``time.monotonic()``."""
    token = _until_s.set(until_s)
    try:
        yield
    finally:
        _until_s.reset(token)


def left_s() -> float:
    """Seconds that are left. Raises ``RequestTimeoutError`` where none are."""
    left = _until_s.get() - time.monotonic()
    if left <= 0:
        raise too_late()
    return left


@contextmanager
def held(lock: threading.Lock) -> Iterator[None]:
    """Hold ``lock``; waiting for it is part of the request's time. Raises ``RequestTimeoutError``."""
    if not lock.acquire(timeout=min(left_s(), threading.TIMEOUT_MAX)):
        raise too_late()
    try:
        yield
    finally:
        lock.release()


def too_late() -> RequestTimeoutError:
    return RequestTimeoutError("the request took longer than its time limit")
