"""The connection that a request came by: what it counts as load, whether the caller is still there. HTTP threads."""

from __future__ import annotations

import socket
from typing import Any

from app.core.errors import RequestError
from app.serve.board.admission import ConnectionTicket
from app.serve.connections import hangup
from app.serve.connections.link import Link

# Key in the WSGI environment of servers other than Gunicorn: a function that tells whether the caller left.
CLIENT_GONE = "forklift.client_gone"
# How often a request that waits looks whether its caller is still there.
CLIENT_CHECK_S = 0.25


class ClientGoneError(RequestError):
    """The caller closed the connection; 499 stands in our log only, nobody reads the answer."""

    status = 499
    type = "invalid_request_error"
    code = "client_disconnected"

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


def ticket_of(environ: dict[str, Any]) -> ConnectionTicket | None:
    """What the request's connection counts as load by itself; None with servers that count none."""
    connection = environ.get("gunicorn.socket")
    return connection.ticket if isinstance(connection, Link) else None


def is_client_gone(environ: dict[str, Any]) -> bool:
    """Whether the connection was closed or reset, whatever else was sent on it.

    False where it cannot be told: servers other than Gunicorn that leave no ``CLIENT_GONE``.
    """
    if (is_gone := environ.get(CLIENT_GONE)) is not None:
        return bool(is_gone())
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, Link):
        return connection.has_left()
    return isinstance(connection, socket.socket) and hangup.has_ended(connection)
