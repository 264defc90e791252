"""The last thing that a server does: answer those whom no worker has taken. Master, after its workers have ended.

A connection that waits in a listener's backlog is reset when the last descriptor of the listener is closed. The master
therefore keeps one to the end: it lets no new handshake begin, answers what is there with 503, and closes.
"""

from __future__ import annotations

import ctypes
import selectors
import socket
import struct
import time
from contextlib import suppress
from functools import partial
from typing import Any

from app.serve.connections.closing import Closer
from app.serve.connections.tls import TlsWrapper
from app.serve.incoming import error_answers
from app.serve.incoming.receiving import Incoming, Receiver

# Handshakes that have begun come to their end in this time.
QUIET_S = 0.1
LIMIT_S = 3.0
SO_ATTACH_FILTER = 26
# A classic packet filter over the TCP header: drop what has SYN without ACK, let everything else through.
_REFUSE_NEW = [
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # and SYN | ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # accept
]


class Farewell:
    """Holds the listeners of the master from ``hold`` until ``say``."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []

    def hold(self, listeners: list[Any]) -> None:
        """Keep these open, whoever closes them."""
        self._listeners = [listener.sock.dup() for listener in listeners]

    def forget(self) -> None:
        """Close them: a worker inherits what only the master needs."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def say(self, cfg: Any, max_body_bytes: int) -> None:
        """Answer who waits, and close. Takes ``QUIET_S`` where nobody does, ``LIMIT_S`` at most."""
        with suppress(OSError):
            _Ending(self._listeners, cfg, max_body_bytes).run()
        self.forget()


class _Ending:
    def __init__(self, listeners: list[socket.socket], cfg: Any, max_body_bytes: int):
        self._poller = selectors.DefaultSelector()
        self._num_connections = 0
        self._tls = TlsWrapper(cfg) if cfg.is_ssl else None
        self._closer = Closer(self._poller, self._count_closed)
        self._receiver = Receiver(
            self._poller,
            LIMIT_S,
            max_body_bytes,
            self._closer,
            lambda _incoming: error_answers.stopping(),
            self._answer,
            lambda _incoming, _answer: None,
        )
        for listener in listeners:
            listener.setblocking(False)
            refuse_new(listener)
            self._poller.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def run(self) -> None:
        end_s = time.monotonic() + LIMIT_S
        quiet_until_s = time.monotonic() + QUIET_S
        while (now_s := time.monotonic()) < end_s and (self._num_connections or now_s < quiet_until_s):
            for key, _ in self._poller.select(QUIET_S):
                key.data(key.fileobj)
            self._receiver.expire(time.monotonic())
            self._closer.expire(time.monotonic())

    def _accept(self, listener: socket.socket, _same: socket.socket) -> None:
        with suppress(OSError):
            sock, client = listener.accept()
            sock = sock if self._tls is None else self._tls.wrap(sock)
            self._num_connections += 1
            self._receiver.add(sock, client, None, None)

    def _answer(self, incoming: Incoming) -> None:
        self._receiver.answer(incoming, error_answers.stopping())

    def _count_closed(self) -> None:
        self._num_connections -= 1


def refuse_new(listener: socket.socket) -> None:
    """Let no new handshake begin; a client that tries gets no answer until the listener is closed, then a refusal.
    Does nothing for Unix sockets, and where the system has no such filter."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _REFUSE_NEW))
    with suppress(OSError):
        program = struct.pack("HP", len(_REFUSE_NEW), ctypes.addressof(code))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
