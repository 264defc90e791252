"""Until when the request may take that a thread works on; whatever waits or works long asks here. HTTP threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.core.errors import RequestTimeoutError

_until_s: ContextVar[float] = ContextVar("until_s", default=float("inf"))


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
