"""Is the caller still there? HTTP threads."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Any

# How often a request that waits looks whether its caller is still there.
CLIENT_CHECK_S = 0.25


def is_client_gone(environ: dict[str, Any]) -> bool:
    """Whether the connection was closed or reset, without taking anything that will be read.

    False where it cannot be told: servers other than Gunicorn.
    """
    connection = environ.get("gunicorn.socket")
    if not isinstance(connection, socket.socket):
        return False
    try:
        return _has_news(connection) and _peek(connection) == b""
    except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
        return False
    except (OSError, ValueError):
        return True


def _has_news(connection: socket.socket) -> bool:
    """Bytes, an end or an error to be read. MSG_DONTWAIT would not do: on a socket with a timeout,
    Python's ``recv`` waits that long for it."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(0))


def _peek(connection: socket.socket) -> bytes:
    if isinstance(connection, ssl.SSLSocket):
        return _read_record(connection)
    return connection.recv(1, socket.MSG_PEEK)


def _read_record(connection: ssl.SSLSocket) -> bytes:
    """A record cannot be peeked at: a TLS client says goodbye inside one. What is read here would never be
    served, for a connection carries one request."""
    timeout_s = connection.gettimeout()
    connection.settimeout(0)
    try:
        return connection.recv(1)
    finally:
        connection.settimeout(timeout_s)
