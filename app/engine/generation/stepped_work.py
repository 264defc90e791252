"""Runs a loop that is not ours one piece at a time.

The loop has a thread of its own, which runs only while its owner waits for the next piece, and waits at all other
times. So never more than one of the two is in torch, and the owner's loop never runs inside the other one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeAlias

# The loop is given what it calls behind each piece; that returns when the next one is wanted.
Work: TypeAlias = Callable[[Callable[[], None]], None]


class Abandoned(BaseException):
    """Nobody wants the rest of the work; no handler of the loop's own is to take it for a failure."""


class _Turn:
    """Whose turn it is; knows neither of the two, so that either can be let go of."""

    def __init__(self) -> None:
        self._of_work, self._of_owner = threading.Lock(), threading.Lock()
        self._of_work.acquire()
        self._of_owner.acquire()
        self.is_abandoned = False
        self.has_ended = False
        self.error: BaseException | None = None

    def run_work(self) -> None:
        """The owner waits until the work pauses or ends."""
        self._of_work.release()
        self._of_owner.acquire()

    def pause(self) -> None:
        """The work waits until its next piece is wanted. Raises ``Abandoned`` where none is."""
        self._of_owner.release()
        self._of_work.acquire()
        if self.is_abandoned:
            raise Abandoned

    def perform(self, work: Work) -> None:
        """The work's thread."""
        self._of_work.acquire()
        try:
            work(self.pause)
        except Abandoned:
            pass
        except BaseException as error:
            self.error = error
        self.has_ended = True
        self._of_owner.release()


class SteppedWork:
    """``work`` from its begin to its end, in pieces; letting go of it abandons what is left."""

    def __init__(self, work: Work):
        self._turn = _Turn()
        self._thread = threading.Thread(target=self._turn.perform, args=(work,), name="stepped-work", daemon=True)
        self._has_begun = False

    def advance(self) -> bool:
        """Run the next piece; whether there is more. Raises what the work raised, which ends it."""
        if not self._has_begun:
            self._has_begun = True
            self._thread.start()
        self._turn.run_work()
        if not self._turn.has_ended:
            return True
        self._thread.join()
        error, self._turn.error = self._turn.error, None
        if error is None:
            return False
        try:
            raise error
        finally:
            # Its traceback holds this frame, and with it the tensors of the pass that failed.
            del error

    def abandon(self) -> None:
        """End the work where it is; harmless when it has ended."""
        self._turn.is_abandoned = True
        while self._has_begun and not self._turn.has_ended:
            self._turn.run_work()
        if self._has_begun:
            self._thread.join()

    def __del__(self) -> None:
        # While the interpreter ends other threads no longer run, and to wait for one would be for ever.
        if not sys.is_finalizing():
            self.abandon()
