"""Connections whose request is still coming in, and connections on their way out. Main thread.

Nothing here blocks: a silent or dripping client costs a file descriptor until its deadline, and a
client that does not close costs one for ``LINGER_S`` more.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.serve import tls
from app.serve.admission import Hold
from app.serve.answers import Answer, body_timeout, head_too_large, invalid_request, not_tls, out_of_memory
from app.serve.buffering import RequestBuffer, Verdict
from app.serve.deadlines import DeadlineQueue

READ_BYTES = 262_144
# All requests that are still coming in, together.
MAX_BUFFERED_BYTES = 268_435_456
# A connection counts as load for this long; then it is slow or silent and only costs memory.
FRESH_S = 1.0
# As in RFC 9112, section 9.6: closing with unread input would reset the connection and could take
# the answer with it.
LINGER_S = 2.0
MAX_DISCARDED_BYTES = 16_777_216
_NOTHING_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What no application can answer.
REFUSED = {Verdict.HEAD_TOO_LARGE: head_too_large, Verdict.BODY_INVALID: invalid_request}


@dataclass(eq=False, slots=True)
class Incoming:
    """A client whose request has not arrived completely."""

    sock: socket.socket
    client: Any
    server: Any
    buffer: RequestBuffer
    hold: Hold | None
    num_bytes: int = 0

    def drop_hold(self) -> None:
        """Stop counting as load."""
        if self.hold is not None:
            self.hold.drop()


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


class Receiver:
    """Reads requests until they can be handed on.

    ``on_request`` gets each connection whose request can be served; the others go to ``closer``, some
    of them with an answer, which ``on_refused`` is told.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        timeout_s: float,
        on_request: Callable[[Incoming], None],
        closer: Closer,
        on_refused: Callable[[Incoming, Answer], None],
    ):
        self._poller = poller
        self._on_request = on_request
        self._closer = closer
        self._on_refused = on_refused
        self._waiting: DeadlineQueue[Incoming] = DeadlineQueue(timeout_s)
        self._fresh: DeadlineQueue[Incoming] = DeadlineQueue(FRESH_S)
        self._num_bytes = 0

    def add(self, incoming: Incoming) -> None:
        """Start reading; the first bytes are often there already."""
        now_s = time.monotonic()
        incoming.sock.setblocking(False)
        self._waiting.add(incoming, now_s)
        self._fresh.add(incoming, now_s)
        self._poller.register(incoming.sock, selectors.EVENT_READ, partial(self._read, incoming))
        self._read(incoming, incoming.sock)

    def next_s(self) -> float:
        """When ``expire`` has something to do."""
        return min(self._waiting.next_s(), self._fresh.next_s())

    def expire(self, now_s: float) -> None:
        """Answer 408 to the late, close the silent, and stop counting the slow as load."""
        for incoming in self._fresh.take_expired(now_s):
            incoming.drop_hold()
        for incoming in self._waiting.take_expired(now_s):
            if incoming.buffer.is_empty:
                self._drop(incoming)
            else:
                self._refuse(incoming, body_timeout())

    def evict_oldest(self) -> bool:
        """Make room for a new client by dropping the one that has been sending for longest; False if
        all have only just come."""
        oldest = next((incoming for incoming in self._waiting if incoming not in self._fresh), None)
        if oldest is None:
            return False
        self._forget(oldest)
        self._closer.close_now(oldest.sock)
        return True

    def drop_silent(self) -> None:
        """Close the connections that have not sent a byte: the worker is stopping."""
        for incoming in self._waiting:
            if incoming.buffer.is_empty:
                self._drop(incoming)

    def _read(self, incoming: Incoming, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_BYTES)
        except _NOTHING_YET:
            return
        except OSError as error:
            self._explain(incoming, error)
            data = b""
        if data:
            self._take(incoming, data)
        else:
            self._drop(incoming)

    def _explain(self, incoming: Incoming, error: OSError) -> None:
        """Tell a client that speaks no TLS what it did wrong; other broken connections hear nothing."""
        if tls.is_plain_http(error):
            self._on_refused(incoming, answer := not_tls())
            tls.send_below(incoming.sock, answer.data)

    def _take(self, incoming: Incoming, data: bytes) -> None:
        incoming.num_bytes += len(data)
        self._num_bytes += len(data)
        verdict = incoming.buffer.feed(data)
        if verdict in REFUSED:
            self._refuse(incoming, REFUSED[verdict]())
        elif verdict is not Verdict.MORE:
            self._forget(incoming)
            self._on_request(incoming)
        elif self._num_bytes > MAX_BUFFERED_BYTES:
            self._refuse(incoming, out_of_memory())
        elif incoming.buffer.wants_continue:
            incoming.buffer.wants_continue = False
            _send(incoming.sock, CONTINUE)

    def _refuse(self, incoming: Incoming, answer: Answer) -> None:
        """Answer and close; a new connection's send buffer always has room for a short answer."""
        self._on_refused(incoming, answer)
        _send(incoming.sock, answer.data)
        self._drop(incoming)

    def _drop(self, incoming: Incoming) -> None:
        self._forget(incoming)
        incoming.drop_hold()
        self._closer.close(incoming.sock)

    def _forget(self, incoming: Incoming) -> None:
        self._waiting.discard(incoming)
        self._fresh.discard(incoming)
        self._num_bytes -= incoming.num_bytes
        self._poller.unregister(incoming.sock)


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.send(data)
