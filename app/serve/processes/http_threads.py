"""HTTP threads of one worker: a pool that starts them as they are needed and goes on where the machine gives no more.

The executor of Python's library raises out of ``submit`` then, with the work left in its queue. Any thread.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from app.core.logs.logging import get_logger

log = get_logger("serve")

Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class NoThreadError(RuntimeError):
    """Not one thread could be started."""


class HttpThreads:
    """At most ``max_threads`` threads, of which ``num_early`` are started at once if that is possible."""

    def __init__(self, name: str, max_threads: int, num_early: int = 1):
        self._name = name
        self._max_threads = max_threads
        self._works: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._num_threads = 0
        self._num_in_hand = 0
        for _ in range(min(num_early, max_threads)):
            self._start_another()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a thread call ``function``. Raises ``NoThreadError`` where there is none and none can be started."""
        future: Future[Any] = Future()
        with self._lock:
            if self._num_in_hand >= self._num_threads < self._max_threads:
                self._start_another()
            if not self._num_threads:
                raise NoThreadError("no thread could be started")
            self._num_in_hand += 1
        self._works.put((future, function, arguments))
        return future

    def shutdown(self, wait: bool = False) -> None:
        """Gunicorn's word for the end; the threads are daemons and end with the process."""

    def _start_another(self) -> None:
        try:
            threading.Thread(target=self._run, name=f"{self._name}-{next(self._numbers)}", daemon=True).start()
        except RuntimeError as error:
            log.error("cannot_start_thread", reason=str(error), num_threads=self._num_threads)
        else:
            self._num_threads += 1

    def _run(self) -> None:
        while True:
            self._work(*self._works.get())

    def _work(self, future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            result = function(*arguments)
        except BaseException as error:
            self._leave()
            future.set_exception(error)
        else:
            self._leave()
            future.set_result(result)

    def _leave(self) -> None:
        with self._lock:
            self._num_in_hand -= 1
