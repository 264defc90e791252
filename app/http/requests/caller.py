"""Who asks, whichever door they came by: what placing, planning and waiting need to know of them. HTTP threads.

Each door (``application/connection.py`` for WSGI, ``app/rpc`` for gRPC) makes one per request; nothing behind it knows
which it was.
"""

from __future__ import annotations

from typing import Protocol

from app.core.errors import RequestError
from app.serve.board.admission import ConnectionTicket

# How often a request that waits looks whether its caller is still there.
CLIENT_CHECK_S = 0.25


class ClientGoneError(RequestError):
    """The caller closed the connection; 499 stands in our log only, nobody reads the answer."""

    status = 499
    type = "invalid_request_error"
    code = "client_disconnected"

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class Caller(Protocol):
    """One request's caller. Any thread."""

    @property
    def request_id(self) -> str:
        """The id that the caller chose or was given."""

    @property
    def scope(self) -> str:
        """What tells callers apart who share nothing: a hash of the key, empty where keys are not checked."""

    @property
    def ticket(self) -> ConnectionTicket | None:
        """What the request counts as load until it has a place; None with servers that count nothing."""

    def own_limit_s(self) -> float | None:
        """Seconds from now that the caller gives the request; None without a limit. Raises
        ``InvalidParameterError``."""

    def is_gone(self) -> bool:
        """Whether nobody will read the answer."""
