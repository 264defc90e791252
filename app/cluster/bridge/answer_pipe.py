"""One answer on its way from the thread that makes it to the event loop that sends it.

The thread never waits for the reader: what is not sent yet costs memory, within a bound over all answers. Beyond it
the answer whose reader has read nothing for longest is given up, as in ``app/serve/connections/sending.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass

# All that waits to be read, together.
MAX_UNSENT_BYTES = 67_108_864


class ReaderGoneError(OSError):
    """Nobody reads the answer any more; raised in the thread that makes it."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields, in the order in which they were set."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class End:
    """The thread is done. ``failure``: what it raised after it had begun to answer; the answer is cut off there."""

    failure: BaseException | None = None


Piece = Head | bytes | End


class UnsentBytes:
    """Counts what waits in all pipes of a process. Any thread."""

    def __init__(self, limit: int = MAX_UNSENT_BYTES):
        self._limit = limit
        self._lock = threading.Lock()
        # In the order of their readers' last sign of life.
        self._waiting: dict[AnswerPipe, int] = {}
        self._num_bytes = 0

    def add(self, pipe: AnswerPipe, num_bytes: int) -> None:
        """``pipe`` keeps so many more. May give up the pipe that has stood still for longest."""
        with self._lock:
            self._waiting[pipe] = self._waiting.get(pipe, 0) + num_bytes
            self._num_bytes += num_bytes
            stalest = next(iter(self._waiting)) if self._num_bytes > self._limit else None
        if stalest is not None:
            stalest.give_up()

    def sent(self, pipe: AnswerPipe, num_bytes: int) -> None:
        """Its reader has taken so many."""
        with self._lock:
            if (waiting := self._waiting.pop(pipe, None)) is not None:
                self._num_bytes -= num_bytes
                self._waiting[pipe] = waiting - num_bytes

    def forget(self, pipe: AnswerPipe) -> None:
        """Nothing of it waits any more; harmless when repeated."""
        with self._lock:
            self._num_bytes -= self._waiting.pop(pipe, 0)


class AnswerPipe:
    """Made on the event loop. ``put`` is the thread's, ``get`` the loop's, the rest anybody's."""

    def __init__(self, unsent: UnsentBytes):
        self._loop = asyncio.get_running_loop()
        self._unsent = unsent
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._gone = threading.Event()

    def put(self, piece: Head | bytes) -> None:
        """Hand on a part of the answer. Raises ``ReaderGoneError``."""
        if self._gone.is_set():
            raise ReaderGoneError("the reader is gone")
        if isinstance(piece, bytes):
            self._unsent.add(self, len(piece))
        self._hand_over(piece)

    def end(self, failure: BaseException | None = None) -> None:
        """The thread is done with the request."""
        self._hand_over(End(failure))

    async def get(self) -> Piece:
        return await self._pieces.get()

    def sent(self, num_bytes: int) -> None:
        """The reader has taken so many bytes."""
        self._unsent.sent(self, num_bytes)

    def is_gone(self) -> bool:
        """Whether nobody will read the answer."""
        return self._gone.is_set()

    def give_up(self) -> None:
        """Nothing is sent any more: the reader left, does not read, or has it all. Harmless when repeated."""
        self._gone.set()
        self._unsent.forget(self)

    def _hand_over(self, piece: Piece) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:
            # The loop is closed: the process ends.
            self.give_up()
