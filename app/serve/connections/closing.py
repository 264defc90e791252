"""Connections on their way out: half-close, discard what still comes, close. Main thread of a worker.

Nothing here blocks: a client that does not close costs a file descriptor for ``LINGER_S`` more.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable

from app.serve.connections import tls
from app.serve.connections.deadlines import DeadlineQueue

READ_BYTES = 262_144
# As in RFC 9112, section 9.6: closing with unread input would reset the connection and could take
# the answer with it.
LINGER_S = 2.0
MAX_DISCARDED_BYTES = 16_777_216
_NOTHING_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)


class Closer:
    """Closes sockets so that the last answer arrives: half-close, discard, close."""

    def __init__(self, poller: selectors.BaseSelector, on_closed: Callable[[], None]):
        self._poller = poller
        self._on_closed = on_closed
        self._lingering: DeadlineQueue[socket.socket] = DeadlineQueue(LINGER_S)
        self._num_discarded_bytes: dict[socket.socket, int] = {}

    def __len__(self) -> int:
        return len(self._lingering)

    def close(self, sock: socket.socket) -> None:
        """Begin to close; ``on_closed`` is called once the socket is gone."""
        try:
            sock.setblocking(False)
            tls.say_goodbye(sock)
            sock.shutdown(socket.SHUT_WR)
            self._poller.register(sock, selectors.EVENT_READ, self._discard)
        except (OSError, ValueError):
            self.close_now(sock)
            return
        self._lingering.add(sock, time.monotonic())
        self._num_discarded_bytes[sock] = 0

    def next_s(self) -> float:
        return self._lingering.next_s()

    def expire(self, now_s: float) -> None:
        for sock in self._lingering.take_expired(now_s):
            self._end(sock)

    def _discard(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_BYTES)
        except _NOTHING_YET:
            return
        except OSError:
            data = b""
        self._num_discarded_bytes[sock] += len(data)
        if not data or self._num_discarded_bytes[sock] > MAX_DISCARDED_BYTES:
            self._lingering.discard(sock)
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        self._num_discarded_bytes.pop(sock, None)
        self._poller.unregister(sock)
        self.close_now(sock)

    def close_now(self, sock: socket.socket) -> None:
        """Close without waiting for the client."""
        sock.close()
        self._on_closed()
