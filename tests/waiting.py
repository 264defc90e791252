"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 60.0
POLL_S = 0.005


def wait_until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Poll until ``condition`` holds; fails the test where it never does."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(POLL_S)
