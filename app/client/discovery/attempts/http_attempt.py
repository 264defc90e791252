"""Calls over HTTP at one of many servers: a connection each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...asking_again import refusal
from ...client_errors import ClientError
from ...connection.call_deadline import CallDeadline
from ...connection.endpoint import Endpoint
from ...connection.exchange import Exchange
from ...connection.one_server import TIMEOUT_GRACE_S, json_bytes
from ..server_entry import ServerEntry
from .attempt import AttemptAt
from .first_event import error_at_once

# A machine that is gone answers no handshake, and another one is there.
CONNECT_LIMIT_S = 3.0
PROBE_LIMIT_S = 2.0


class HttpWay:
    """Raises ``SetupError`` for a key that cannot be sent."""

    ports = "an HTTP port"

    def __init__(self, api_key: str | None):
        self._api_key = api_key
        Endpoint("http://localhost", api_key)

    def can_reach(self, entry: ServerEntry) -> bool:
        return entry.http.startswith("http")

    def attempts(self, path: str, body: dict[str, Any] | None) -> AttemptAt:
        return partial(HttpAttempt, self._api_key, path, json_bytes(body))

    def is_alive(self, entry: ServerEntry) -> bool:
        return is_alive(entry.http)

    def keep(self, entries: Sequence[ServerEntry]) -> None:
        """Nothing is held between calls."""

    def close(self) -> None:
        """Nothing is held between calls."""


class HttpAttempt:
    """Its time ends ``limit_s`` from now, and a moment later where the server tells that it is over."""

    def __init__(self, api_key: str | None, path: str, data: bytes | None, entry: ServerEntry, limit_s: float):
        self._endpoint, self._path, self._data = Endpoint(entry.http, api_key), path, data
        self._limit_s = limit_s
        self._deadline = CallDeadline(limit_s + min(TIMEOUT_GRACE_S, limit_s / 2))
        self._exchange: Exchange | None = None
        self.advised_s: float | None = None

    @property
    def heard_s(self) -> float:
        return self._deadline.heard_s

    @property
    def was_cut(self) -> bool:
        return self._deadline.was_cut

    @property
    def has_reached(self) -> bool:
        return self._deadline.was_connected

    @property
    def told_load(self) -> str | None:
        return None if self._exchange is None else self._exchange.headers.get("X-Load")

    def answer(self, is_whole: bool) -> Exchange:
        exchange = self._exchange = self._open()
        if exchange.status != 200:
            error, self.advised_s = refusal(exchange, 0)
            raise error
        if is_whole:
            return exchange.read()
        try:
            error_event = error_at_once(exchange)
        except ClientError:
            exchange.close()
            raise
        if error_event is not None:
            exchange.close()
            raise error_event
        return exchange

    def cut(self) -> None:
        self._deadline.cut()

    def close(self) -> None:
        self._deadline.close()

    def _open(self) -> Exchange:
        return self._endpoint.open(
            "GET" if self._data is None else "POST",
            self._path,
            self._deadline.limit_s,
            self._data,
            {"Content-Type": "application/json", "X-Request-Timeout-S": f"{self._limit_s:.3f}"},
            connect_limit_s=CONNECT_LIMIT_S,
            deadline=self._deadline,
        )


def is_alive(url: str, limit_s: float = PROBE_LIMIT_S) -> bool:
    """Whether the process behind the URL answers anything at all."""
    try:
        with Endpoint(url).open("GET", "/livez", limit_s):
            return True
    except ClientError:
        return False
