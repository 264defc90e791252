"""The caller of a gRPC call: its metadata, its key, its deadline. Any thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from app.core.errors import UnauthorizedError
from app.core.parsing.keys import known_key
from app.http.application.connection import scope_of
from app.http.application.request_log import choose_request_id
from app.http.requests.limits import TIMEOUT_HEADER, parse_seconds
from app.serve.board.admission import ConnectionTicket

# gRPC's clock and ours differ by this at most.
DEADLINE_SLACK_S = 0.05
# What of a call's metadata means something here; all else is nobody's.
KNOWN = ("authorization", "x-api-key", "x-request-id", "recordid", TIMEOUT_HEADER.lower())


class RpcCaller:
    """One call's caller."""

    def __init__(self, metadata: Iterable[tuple[str, str | bytes]], limit_s: float | None, keys: Sequence[bytes]):
        given = {name: value for name, value in metadata if name in KNOWN and isinstance(value, str)}
        self.request_id = choose_request_id(given.get("x-request-id"))
        self.recordid = given.get("recordid")
        self.metadata = (*((name, given[name]) for name in KNOWN if name in given and name != "x-request-id"),)
        self.ticket: ConnectionTicket | None = None
        self._timeout = given.get(TIMEOUT_HEADER.lower())
        self._deadline_s = None if limit_s is None else time.monotonic() + limit_s
        self._key = known_key(_sent(given, "authorization"), _sent(given, "x-api-key"), keys)
        self._is_refused = bool(keys) and self._key is None
        self._is_gone = False

    @property
    def scope(self) -> str:
        return scope_of(self._key)

    @property
    def is_refused(self) -> bool:
        """Whether a key is needed and none that is valid was shown."""
        return self._is_refused

    def require_key(self) -> None:
        """Raise ``UnauthorizedError`` without a valid key where one is needed."""
        if self._is_refused:
            raise UnauthorizedError("a valid API key is needed: metadata authorization: Bearer <key>")

    def time_left_s(self) -> float | None:
        """Seconds until the call's deadline; None without one."""
        return None if self._deadline_s is None else max(self._deadline_s - time.monotonic(), 0.0)

    def own_limit_s(self) -> float | None:
        limits = [limit for limit in (self.time_left_s(), self._told_limit_s()) if limit is not None]
        return min(limits, default=None)

    def leave(self) -> None:
        """The call is over. One whose deadline has passed, give or take, is ended by that, as over HTTP."""
        left_s = self.time_left_s()
        self._is_gone = left_s is None or left_s > DEADLINE_SLACK_S

    def is_gone(self) -> bool:
        return self._is_gone

    def _told_limit_s(self) -> float | None:
        return None if self._timeout is None else parse_seconds(self._timeout)


def _sent(given: dict[str, str], name: str) -> bytes:
    return given.get(name, "").encode()
