"""Answers on their way to callers that read more slowly than they are made. Main thread of a worker.

HTTP threads leave here what the kernel does not take at once, so that a slow reader costs memory, within a bound, and
neither a thread nor a place.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from functools import partial

from app.core.logs.logging import get_logger
from app.serve.connections.deadlines import DeadlineQueue
from app.serve.connections.link import Link

# All that waits to be read, together; beyond it the reader that has read nothing for longest is dropped.
MAX_UNSENT_BYTES = 67_108_864
# A reader keeps its connection by reading this much, or all, in each period of the write timeout.
LEAST_PROGRESS_BYTES = 16_384
# Behind answers of this size, made and kept by many threads, the C library's free memory goes back after a while.
LARGE_BYTES = 65_536
TRIM_AFTER_S = 2.0

log = get_logger("serve")


class Sender:
    """Sends what waits. ``on_done`` gets each finished link once everything is sent or the reader is given up;
    ``on_large_gone`` is called a while after large answers had to wait."""

    def __init__(
        self,
        poller: selectors.BaseSelector,
        timeout_s: float,
        on_done: Callable[[Link], None],
        on_large_gone: Callable[[], object],
    ):
        self._poller = poller
        self._timeout_s = timeout_s
        self._on_done = on_done
        self._slow: DeadlineQueue[Link] = DeadlineQueue(timeout_s)
        self._num_progress_bytes: dict[Link, int] = {}
        self._on_large_gone = on_large_gone
        self._trim_at_s = float("inf")

    def __len__(self) -> int:
        return len(self._slow)

    def take(self, link: Link) -> None:
        """Bytes wait on ``link``."""
        if link.num_unsent_bytes >= LARGE_BYTES:
            self._trim_at_s = min(self._trim_at_s, time.monotonic() + TRIM_AFTER_S)
        if link not in self._slow and link.num_unsent_bytes:
            self._poller.register(link.sock, selectors.EVENT_WRITE, partial(self._write, link))
            self._renew(link)
        self._keep_bound()

    def finish(self, link: Link) -> None:
        """Nothing more will be written to ``link``."""
        link.is_finished = True
        if link not in self._slow:
            self._on_done(link)

    def next_s(self) -> float:
        return min(self._slow.next_s(), self._trim_at_s)

    def expire(self, now_s: float) -> None:
        """Drop those that have not read for too long."""
        for link in self._slow.take_expired(now_s):
            log.info("client_does_not_read", timeout_s=self._timeout_s)
            self._drop(link)
        if now_s >= self._trim_at_s:
            # Again later while some are still on their way.
            self._trim_at_s = now_s + TRIM_AFTER_S if self._slow else float("inf")
            self._on_large_gone()

    def _renew(self, link: Link) -> None:
        self._num_progress_bytes[link] = 0
        self._slow.discard(link)
        self._slow.add(link, time.monotonic())

    def _write(self, link: Link, _sock: socket.socket) -> None:
        self._num_progress_bytes[link] += link.flush()
        if link.is_broken or not link.num_unsent_bytes:
            self._end(link)
        elif self._num_progress_bytes[link] >= LEAST_PROGRESS_BYTES:
            self._renew(link)

    def _keep_bound(self) -> None:
        while sum(link.num_unsent_bytes for link in self._slow) > MAX_UNSENT_BYTES:
            log.warning("answers_unread", num_connections=len(self._slow))
            self._drop(next(iter(self._slow)))

    def _drop(self, link: Link) -> None:
        link.give_up()
        self._end(link)

    def _end(self, link: Link) -> None:
        self._slow.discard(link)
        del self._num_progress_bytes[link]
        self._poller.unregister(link.sock)
        if link.is_finished:
            self._on_done(link)
