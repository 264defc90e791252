"""One connection while its request is served. HTTP threads write to it and never wait for its reader.

What the kernel does not take at once is kept here and sent by the main thread (``sending``). Stands where Gunicorn
expects a socket, and asks the kernel whether the caller is still there.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from app.serve.connections import hangup

if TYPE_CHECKING:
    from app.serve.board.admission import ConnectionTicket

SEND_BYTES = 262_144
_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


class Link:
    """A socket that never blocks its writers. ``on_unsent`` is told, once, when bytes begin to wait.

    It reaches the application as ``gunicorn.socket`` in the WSGI environment, and with it the connection's ``ticket``.
    ``path`` is that of the request, as it was sent.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_unsent: Callable[[Link], None],
        ticket: ConnectionTicket | None = None,
        path: str = "",
    ):
        self.sock = sock
        self.ticket = ticket
        self.path = path
        self.is_finished = False
        self._on_unsent = on_unsent
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._is_broken = False
        self._has_half_closed = False

    @property
    def num_unsent_bytes(self) -> int:
        return len(self._unsent)

    # HTTP threads

    def begin(self) -> None:
        """The request is taken up. A caller that has closed its sending side by now wants the answer; one that does so
        later has left. The two look alike to the kernel."""
        with self._lock:
            self._has_half_closed = hangup.has_ended(self.sock)

    def sendall(self, data: bytes) -> None:
        """Send ``data`` now or later. Raises ``BrokenPipeError`` where the connection has been given up."""
        with self._lock:
            self._require_whole()
            was_waiting = bool(self._unsent)
            num_sent = 0 if was_waiting else self._send(data)
            self._require_whole()
            self._unsent += memoryview(data)[num_sent:]
            begins_to_wait = bool(self._unsent) and not was_waiting
        if begins_to_wait:
            self._on_unsent(self)

    def has_left(self) -> bool:
        """Whether the caller is gone, so that nobody will read the answer."""
        with self._lock:
            if self._is_broken or hangup.is_broken(self.sock):
                return True
            return not self._has_half_closed and hangup.has_ended(self.sock)

    # main thread

    def flush(self) -> int:
        """Send what waits, as far as the kernel takes it; returns how many bytes went. None wait once it is broken."""
        with self._lock:
            with memoryview(self._unsent) as waiting, waiting[:SEND_BYTES] as piece:
                num_sent = self._send(piece)
            del self._unsent[:num_sent]
        return num_sent

    def give_up(self) -> None:
        """Nothing is sent any more; writers are told at their next write."""
        with self._lock:
            self._is_broken = True
            self._unsent.clear()

    @property
    def is_broken(self) -> bool:
        return self._is_broken

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data) if data else 0
        except _LATER:
            return 0
        except (OSError, ValueError):
            self._is_broken = True
            return 0

    def _require_whole(self) -> None:
        if self._is_broken:
            self._unsent.clear()
            raise BrokenPipeError(errno.EPIPE, "the connection has been given up")

    # what Gunicorn does with a socket; the main thread alone changes its mode and closes it

    def fileno(self) -> int:
        return self.sock.fileno()

    def setblocking(self, _flag: bool) -> None:
        """It never blocks."""

    def settimeout(self, _timeout_s: float | None) -> None:
        """Deadlines are kept by the main thread."""

    def gettimeout(self) -> float:
        return 0.0

    def shutdown(self, _how: int) -> None:
        """Left to the main thread."""

    def recv(self, _num_bytes: int, *_flags: Any) -> bytes:
        """A connection carries one request, which has been read."""
        return b""

    def close(self) -> None:
        """Left to the main thread."""
        with suppress(OSError):
            self.give_up()
