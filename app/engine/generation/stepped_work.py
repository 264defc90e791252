"""Runs a loop that is not ours one piece at a time, on the thread of its owner.

The loop is a greenlet: it has a stack of its own and no thread, so all that belongs to a thread (torch's modes, its
pool of workers) is the same for both, and a change from one to the other costs a microsecond. A thread in its place
made a token of the demo model take 1.8 times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TypeAlias

import greenlet

# The loop is given what it calls behind each piece; that returns when the next one is wanted.
Work: TypeAlias = Callable[[Callable[[], None]], None]


class SteppedWork:
    """``work`` from its begin to its end, in pieces; letting go of it abandons what is left.

    Every piece runs in a context of ``around``, and so does the end of work that is abandoned: what the work has
    changed for its thread and puts back then must not outlive that.
    """

    def __init__(self, work: Work, around: Callable[[], AbstractContextManager[object]] = nullcontext):
        self._around = around
        self._greenlet = greenlet.greenlet(lambda: work(_pause))

    def advance(self) -> bool:
        """Run the next piece; whether there is more. Raises what the work raised, which ends it."""
        with self._around():
            self._greenlet.switch()
        return not self._greenlet.dead

    def abandon(self) -> None:
        """End the work where it is, by an exception that is no ``Exception``; harmless when it has ended."""
        while not self._greenlet.dead:
            with self._around():
                self._greenlet.throw()

    def __del__(self) -> None:
        # Let go of on another thread it is ended by greenlet itself, on its own one.
        with suppress(greenlet.error):
            self.abandon()


def _pause() -> None:
    """Called by the work: its owner goes on."""
    owner = greenlet.getcurrent().parent
    assert owner is not None, "only work that was begun pauses"
    owner.switch()
