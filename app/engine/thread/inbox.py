"""What reaches the inference thread from other threads: jobs, and wake-ups."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from app.core.work.jobs import BaseJob

if TYPE_CHECKING:
    from app.engine.engine_interface import Engine

Item: TypeAlias = "tuple[BaseJob, Engine]"


class Inbox:
    """``require_open`` raises where no work is taken at all.

    ``was_woken`` says that somebody called ``wake``; the inference thread clears it when it has looked.
    """

    def __init__(self, require_open: Callable[[], None]) -> None:
        self.require_open = require_open
        self.was_woken = False
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()

    # any thread

    def put(self, job: BaseJob, engine: Engine) -> None:
        """Queue ``job`` for a model that stays loaded until it has ended. Raises as ``require_open``."""
        self.require_open()
        self._queue.put((job, engine))

    def wake(self) -> None:
        """Have the thread look at what it has to do."""
        self._queue.put(None)

    # inference thread

    def take(self, patience_s: float | None) -> Iterator[Item]:
        """What has come, waiting ``patience_s`` at most for the first, job or wake-up; None: until there is one."""
        try:
            item = self._queue.get(timeout=patience_s)
            while True:
                if item is None:
                    self.was_woken = True
                else:
                    yield item
                item = self._queue.get_nowait()
        except queue.Empty:
            return
