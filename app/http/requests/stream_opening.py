"""A stream's generation, from before it is opened: what may take long is done on a thread of its own.

HTTP threads. A model that must be loaded, or a grammar that must be compiled, may take longer than proxies wait for the
head of an answer; the thread that writes then goes on without.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

from app.core.errors import OverloadedError
from app.http.requests.caller import ClientGoneError
from app.http.requests.job_output import Batch
from app.http.requests.running import RunningRequest

Open = Callable[[], RunningRequest]


class StreamOpening:
    """Calls ``open_generation`` on a thread that sees the same request."""

    def __init__(self, open_generation: Open):
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._generation: RunningRequest | None = None
        self._error: BaseException | None = None
        self._is_abandoned = False
        run = contextvars.copy_context().run
        try:
            threading.Thread(target=run, args=(self._run, open_generation), name="opening", daemon=True).start()
        except RuntimeError:
            raise OverloadedError("the server cannot start a thread") from None

    def wait(self, timeout_s: float) -> RunningRequest | None:
        """The generation once it is open; None where that takes longer. Raises the error that it failed with."""
        if not self._done.wait(max(0.0, timeout_s)):
            return None
        if self._error is not None:
            raise self._error
        return self._generation

    def abandon(self) -> None:
        """Nobody waits any more: what is or will be opened is closed."""
        with self._lock:
            self._is_abandoned = True
            generation = self._generation
        if generation is not None:
            generation.fail(ClientGoneError())

    def _run(self, open_generation: Open) -> None:
        try:
            generation = open_generation()
            with self._lock:
                self._generation = generation
                is_abandoned = self._is_abandoned
            if is_abandoned:
                generation.fail(ClientGoneError())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()


class StreamSource:
    """The batches of one stream, whether its generation is open already or not."""

    def __init__(self, open_generation: Open, *, may_take_long: bool):
        self._opening = StreamOpening(open_generation) if may_take_long else None
        self.generation = None if may_take_long else open_generation()

    def next_batch(self, timeout_s: float) -> Batch | None:
        """What came, waiting at most ``timeout_s``; None if nothing did.

        Raises as ``RunningRequest.next_batch`` does, and what opening failed with."""
        until_s = time.monotonic() + timeout_s
        if self.generation is None:
            assert self._opening is not None
            self.generation = self._opening.wait(timeout_s)
            if self.generation is None:
                return None
        return self.generation.next_batch(until_s - time.monotonic())

    def fail(self, error: BaseException | None) -> None:
        """Close, because of ``error`` if there is one."""
        if self.generation is not None:
            self.generation.fail(error)
        elif self._opening is not None:
            self._opening.abandon()

    def close(self) -> None:
        self.fail(None)
