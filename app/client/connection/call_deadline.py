"""The end of a call's time, whatever the server sends."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import requests


class CallDeadline:
    """Ends a request's connection when its time is over.

    A timeout of ``requests`` bounds each read: a server that sends a byte per second is never late. A thread waits, and
    shuts down a second descriptor of the socket, which wakes whoever reads.
    """

    def __init__(self, limit_s: float):
        self.limit_s = limit_s
        self.is_over = self.was_cut = self.was_connected = False
        # When anything came last, on ``time.monotonic()``.
        self.heard_s = time.monotonic()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(min(max(limit_s, 0.0), threading.TIMEOUT_MAX), self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(sock.fileno())))
        self.was_connected = True
        if self.is_over or self.was_cut:
            self._shut()

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets = []

    def cut(self) -> None:
        """Break the connection off: its server is not believed to answer any more. From any thread."""
        self.was_cut = True
        self._shut()

    def _end(self) -> None:
        self.is_over = True
        self._shut()

    def _shut(self) -> None:
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class WatchedAdapter(requests.adapters.HTTPAdapter):
    """Shows each new connection to the deadline."""

    def __init__(self, deadline: CallDeadline):
        super().__init__()
        self._deadline = deadline

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = _watched(pool.ConnectionCls, self._deadline)
        return pool


def _watched(kind: Any, deadline: CallDeadline) -> Any:
    """``kind`` of connection, whose socket is watched before anything is read from it, a TLS handshake included."""

    def connect(connection: Any) -> Any:
        sock = kind._new_conn(connection)
        deadline.watch(sock)
        return sock

    return type(f"Watched{kind.__name__}", (kind,), {"_new_conn": connect})
