"""Is the caller still there? HTTP threads."""

from __future__ import annotations

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
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, InterruptedError, TimeoutError):
        return False
    except OSError:
        return True
