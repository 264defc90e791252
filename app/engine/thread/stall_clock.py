"""How the inference thread fares: since when it loads or steps, and what it died of.

Written by the inference thread, read by the worker's watch, which replaces a process that has a defect.
"""

from __future__ import annotations

import time


class StallClock:
    """Two clocks, of which at most one runs, and the thread's last words.

    While a model loads no other one steps: that is no stall.
    """

    def __init__(self, load_timeout_s: float, stall_timeout_s: float):
        self._load_timeout_s = load_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._loading_since_s: float | None = None
        self._busy_since_s: float | None = None
        self._anew_s = 0.0
        self.crash: str | None = None

    def note_loading(self, is_loading: bool) -> None:
        """A load begins or has ended."""
        self._busy_since_s = None
        self._loading_since_s = time.monotonic() if is_loading else None

    def note_step(self) -> None:
        """A step begins, or is seen to come forward."""
        self._busy_since_s = time.monotonic()

    def note_idle(self) -> None:
        """There is nothing to do."""
        self._busy_since_s = None

    def start_anew(self, now_s: float) -> None:
        """Measure from here on: the process was stopped for a while. Called by the watch."""
        self._anew_s = now_s

    def overdue(self, now_s: float) -> str | None:
        """What takes too long, or None."""
        if self._is_older(self._loading_since_s, self._load_timeout_s, now_s):
            return f"loading took longer than {self._load_timeout_s:g} s"
        if self._is_older(self._busy_since_s, self._stall_timeout_s, now_s):
            return f"no token for {self._stall_timeout_s:g} s"
        return None

    def _is_older(self, since_s: float | None, limit_s: float, now_s: float) -> bool:
        return since_s is not None and now_s - max(since_s, self._anew_s) > limit_s
