"""What reaches the inference thread from other threads: jobs, and wake-ups."""

from __future__ import annotations

import queue
from collections.abc import Iterator

from app.core.jobs import BaseJob
from app.engine.loading.handle import ModelHandle


class Inbox:
    """``was_woken`` says that somebody called ``wake``; the inference thread clears it when it has looked."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[BaseJob, ModelHandle] | None] = queue.SimpleQueue()
        self.was_woken = False

    # any thread

    def put(self, job: BaseJob, handle: ModelHandle) -> None:
        """Queue ``job`` for a model that is loaded."""
        self._queue.put((job, handle))

    def wake(self) -> None:
        """Have the thread look at what it has to do."""
        self._queue.put(None)

    # inference thread

    def take(self, patience_s: float | None) -> Iterator[tuple[BaseJob, ModelHandle]]:
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
