"""The caller of a WSGI request: the connection it came by, its key, its own limit. HTTP threads."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

from app.http.requests.limits import TIMEOUT_HEADER, parse_seconds
from app.serve.board.admission import ConnectionTicket
from app.serve.connections import hangup
from app.serve.connections.link import Link

# In the WSGI environment: the key that was shown and is valid.
CALLERS_KEY = "forklift.key"
# Key in the WSGI environment of servers other than Gunicorn: a function that tells whether the caller left.
CLIENT_GONE = "forklift.client_gone"
_TIMEOUT = "HTTP_" + TIMEOUT_HEADER.upper().replace("-", "_")


class HttpCaller:
    """Made before the key is looked at; reads the ``environ`` of WSGI when it is asked."""

    def __init__(self, request_id: str, environ: dict[str, Any]):
        self.request_id = request_id
        self._environ = environ

    @property
    def scope(self) -> str:
        key: bytes | None = self._environ.get(CALLERS_KEY)
        return scope_of(key)

    @property
    def ticket(self) -> ConnectionTicket | None:
        return ticket_of(self._environ)

    def own_limit_s(self) -> float | None:
        header: str | None = self._environ.get(_TIMEOUT)
        return None if header is None else parse_seconds(header)

    def is_gone(self) -> bool:
        return is_client_gone(self._environ)


def scope_of(key: bytes | None) -> str:
    """What callers with this key share; keys that are not checked are none."""
    return "" if key is None else hashlib.sha256(key).hexdigest()


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
