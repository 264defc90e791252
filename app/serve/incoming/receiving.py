"""Connections whose request is still coming in. Main thread of a worker.

Nothing here blocks: a silent or dripping client costs a file descriptor until its deadline.
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

from app.core.errors import RequestError
from app.serve.board.admission import ConnectionTicket
from app.serve.connections import tls
from app.serve.connections.closing import Closer
from app.serve.connections.deadlines import DeadlineQueue
from app.serve.incoming.buffering import RequestBuffer, Verdict
from app.serve.incoming.error_answers import (
    Answer,
    answer_to,
    body_timeout,
    head_too_large,
    invalid_request,
    not_tls,
    out_of_memory,
    unsupported_coding,
)

READ_BYTES = 262_144
# All requests that come in or are being served, together; a few of the largest must fit.
MAX_BUFFERED_BYTES = 67_108_864
MIN_BUFFERED_BODIES = 8
# A connection counts as load for this long; then it is slow or silent and only costs memory.
FRESH_S = 1.0
# Each read costs as much as thousands of bytes: a client that drips is read at intervals, so that its bytes gather.
NUM_FREE_READS = 16
LEAST_READ_BYTES = 1024
REST_S = 0.05
_NOTHING_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What no application can answer.
REFUSED = {
    Verdict.HEAD_TOO_LARGE: head_too_large,
    Verdict.BODY_INVALID: invalid_request,
    Verdict.CODING_UNSUPPORTED: unsupported_coding,
}


@dataclass(eq=False, slots=True)
class Incoming:
    """A client whose request has not arrived completely; ``num_bytes`` have."""

    sock: socket.socket
    client: Any
    server: Any
    buffer: RequestBuffer
    ticket: ConnectionTicket | None
    num_bytes: int = 0
    num_reads: int = 0

    @property
    def is_dripping(self) -> bool:
        return self.num_reads > NUM_FREE_READS and self.num_bytes < self.num_reads * LEAST_READ_BYTES

    def drop_ticket(self) -> None:
        """Stop counting as load."""
        if self.ticket is not None:
            self.ticket.drop()


class Receiver:
    """Reads requests until they can be handed on.

    ``on_head`` is asked about a request whose head is there and whose body is not: it may give an error at once, or
    cut the body off. ``on_request`` gets each connection whose request can be served, and ``give_back`` must be called
    when it has been; the others go to ``closer``, some of them with an answer, which ``on_refused`` is told.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        timeout_s: float,
        max_body_bytes: int,
        closer: Closer,
        on_head: Callable[[Incoming], RequestError | None],
        on_request: Callable[[Incoming], None],
        on_refused: Callable[[Incoming, Answer], None],
    ):
        self._poller = poller
        self._closer = closer
        self._on_head = on_head
        self._on_request = on_request
        self._on_refused = on_refused
        self._waiting: DeadlineQueue[Incoming] = DeadlineQueue(timeout_s)
        self._fresh: DeadlineQueue[Incoming] = DeadlineQueue(FRESH_S)
        self._resting: DeadlineQueue[Incoming] = DeadlineQueue(REST_S)
        self._max_body_bytes = max_body_bytes
        self._num_bytes = 0
        self._max_bytes = max(MAX_BUFFERED_BYTES, MIN_BUFFERED_BODIES * max_body_bytes)

    def add(self, sock: socket.socket, client: Any, server: Any, ticket: ConnectionTicket | None) -> None:
        """Start reading; the first bytes are often there already."""
        incoming = Incoming(sock, client, server, RequestBuffer(self._max_body_bytes), ticket)
        now_s = time.monotonic()
        sock.setblocking(False)
        self._waiting.add(incoming, now_s)
        self._fresh.add(incoming, now_s)
        self._listen(incoming)
        self._read(incoming, sock)

    def next_s(self) -> float:
        """When ``expire`` has something to do."""
        return min(self._waiting.next_s(), self._fresh.next_s(), self._resting.next_s())

    def expire(self, now_s: float) -> None:
        """Answer 408 to the late, close the silent, and stop counting the slow as load."""
        for incoming in self._fresh.take_expired(now_s):
            incoming.drop_ticket()
        for incoming in self._resting.take_expired(now_s):
            self._listen(incoming)
        for incoming in self._waiting.take_expired(now_s):
            if incoming.buffer.is_empty:
                self._drop(incoming)
            else:
                self._refuse(incoming, body_timeout())

    def evict_oldest(self, *, is_urgent: bool = False) -> bool:
        """Make room for a new client by dropping the one that has been sending for longest; False if
        all have only just come, which protects nobody where it is urgent."""
        oldest = next((incoming for incoming in self._waiting if is_urgent or incoming not in self._fresh), None)
        if oldest is None:
            return False
        self._forget(oldest)
        self.give_back(oldest.num_bytes)
        oldest.drop_ticket()
        self._closer.close_now(oldest.sock)
        return True

    @property
    def num_silent(self) -> int:
        """Connections that have not sent a byte, and did not just come: the bytes of those are on their way."""
        return sum(incoming.buffer.is_empty and incoming not in self._fresh for incoming in self._waiting)

    def refuse_all(self, error: RequestError) -> None:
        """End what is not complete: the worker leaves. Who has not sent a byte gets no answer."""
        for incoming in self._waiting:
            if incoming.buffer.is_empty:
                self._drop(incoming)
            else:
                self._refuse(incoming, error)

    def give_back(self, num_bytes: int) -> None:
        """A request of this size is not kept any more."""
        self._num_bytes -= num_bytes

    def answer(self, incoming: Incoming, error: RequestError) -> None:
        """Answer what came in by ``on_request``, and close; a new connection's send buffer has room for that."""
        answer = answer_to(incoming.buffer.path, error)
        self._on_refused(incoming, answer)
        _send(incoming.sock, answer.data)
        self._release(incoming)

    def _listen(self, incoming: Incoming) -> None:
        self._poller.register(incoming.sock, selectors.EVENT_READ, partial(self._read, incoming))

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
            self._on_refused(incoming, answer := answer_to("", not_tls()))
            tls.send_below(incoming.sock, answer.data)

    def _take(self, incoming: Incoming, data: bytes) -> None:
        incoming.num_bytes += len(data)
        incoming.num_reads += 1
        self._num_bytes += len(data)
        verdict = incoming.buffer.feed(data)
        if verdict is Verdict.MORE and incoming.buffer.has_new_head:
            if (error := self._on_head(incoming)) is not None:
                self._refuse(incoming, error)
                return
            verdict = incoming.buffer.verdict
        if verdict in REFUSED:
            self._refuse(incoming, REFUSED[verdict]())
        elif verdict is not Verdict.MORE:
            self._forget(incoming)
            self._on_request(incoming)
        elif self._num_bytes > self._max_bytes:
            self._refuse(incoming, out_of_memory())
        else:
            self._go_on(incoming)

    def _go_on(self, incoming: Incoming) -> None:
        if incoming.buffer.wants_continue:
            incoming.buffer.wants_continue = False
            _send(incoming.sock, CONTINUE)
        if incoming.is_dripping:
            self._poller.unregister(incoming.sock)
            self._resting.add(incoming, time.monotonic())

    def _refuse(self, incoming: Incoming, error: RequestError) -> None:
        self._forget(incoming)
        self.answer(incoming, error)

    def _drop(self, incoming: Incoming) -> None:
        self._forget(incoming)
        self._release(incoming)

    def _release(self, incoming: Incoming) -> None:
        self.give_back(incoming.num_bytes)
        incoming.drop_ticket()
        self._closer.close(incoming.sock)

    def _forget(self, incoming: Incoming) -> None:
        self._waiting.discard(incoming)
        self._fresh.discard(incoming)
        if incoming in self._resting:
            self._resting.discard(incoming)
        else:
            self._poller.unregister(incoming.sock)


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.send(data)
