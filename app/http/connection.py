"""Is the caller still there? HTTP threads."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Any


def is_client_gone(environ: dict[str, Any]) -> bool:
    """Whether the connection was closed or reset, without reading from it.

    False where it cannot be told: servers other than Gunicorn, and TLS, whose records cannot be
    peeked at.
    """
    connection = environ.get("gunicorn.socket")
    if not isinstance(connection, socket.socket) or isinstance(connection, ssl.SSLSocket):
        return False
    try:
        return _has_news(connection) and connection.recv(1, socket.MSG_PEEK) == b""
    except (BlockingIOError, TimeoutError):
        return False
    except (OSError, ValueError):
        return True


def _has_news(connection: socket.socket) -> bool:
    """Bytes, an end or an error to be read. MSG_DONTWAIT would not do: on a socket with a timeout,
    Python's ``recv`` waits that long for it."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(0))
