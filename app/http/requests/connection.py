"""Is the caller still there? HTTP threads."""

from __future__ import annotations

import socket
from typing import Any

from app.serve.connections import hangup
from app.serve.connections.link import Link

# How often a request that waits looks whether its caller is still there.
CLIENT_CHECK_S = 0.25


def is_client_gone(environ: dict[str, Any]) -> bool:
    """Whether the connection was closed or reset, whatever else was sent on it.

    False where it cannot be told: servers other than Gunicorn.
    """
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, Link):
        return connection.has_left()
    return isinstance(connection, socket.socket) and hangup.has_ended(connection)
