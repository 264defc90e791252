"""The load at the start of a worker: tried again with growing pauses until it works. Inference thread.

Until some worker was ready a failure stops the server; the worker's watch sees to that, and reads
``failure`` more often than the shortest pause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from app.core.errors import ModelLoadError, StartError
from app.core.logs.logging import get_logger
from app.core.states import OnState

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 60.0

log = get_logger("engine")
T = TypeVar("T")
MAX_REASON_CHARS = 300


def unexpected(error: Exception) -> ModelLoadError:
    """The one line for a failure whose traceback stands in the log."""
    reason = " ".join(str(error).split())[:MAX_REASON_CHARS]
    return ModelLoadError(f"the load failed unexpectedly: {type(error).__name__}: {reason}; see the log above")


class FirstLoad:
    """``failure`` is why the last load failed; None while one is under way, and after one that worked."""

    def __init__(self, slot: int, on_state: OnState):
        self._slot = slot
        self._on_state = on_state
        self.failure: StartError | None = None

    def run(self, load: Callable[[], T], leaving: threading.Event) -> T | None:
        """What ``load`` returns in the end; None where ``leaving`` was set first: nobody wants it any more."""
        pause_s = FIRST_RETRY_S
        while not leaving.is_set():
            self.failure = None
            self._on_state("loading", 0.0)
            try:
                return load()
            except StartError as error:
                self.failure = error
            except Exception as error:
                # Not one of the failures that are known: told all the same, or the worker would be replaced for ever.
                log.exception("load_raised", slot=self._slot)
                self.failure = unexpected(error)
            self._on_state("failed", 0.0)
            log.error("load_failed", slot=self._slot, error=str(self.failure), retry_in_s=pause_s)
            leaving.wait(pause_s)
            pause_s = min(pause_s * 2, LONGEST_RETRY_S)
        return None
