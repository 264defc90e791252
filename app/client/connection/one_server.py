"""Asks one server, again where that helps, within the time of the call."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Protocol

from ..asking_again import own_pause_s, refusal
from ..client_errors import LateError, NoAnswerError, SetupError
from ..discovery.server_entry import ServerEntry
from .endpoint import Endpoint
from .exchange import AnswerSource, Exchange

# The server is told the limit and answers 504 at it: that answer should still arrive.
TIMEOUT_GRACE_S = 5.0


class Transport(Protocol):
    """How a client's calls reach a server. Any number of threads may use it."""

    @property
    def shown_url(self) -> str:
        """Where it asks, without a password."""

    def post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> AnswerSource:
        """An answer of status 200, whole where that is wanted. Raises ``ClientError``."""

    @property
    def servers(self) -> tuple[ServerEntry, ...]:
        """Those that may be asked, as far as they are known."""

    def close(self) -> None:
        """Let go of what it holds; calls that run go on."""


@dataclass(frozen=True)
class CallLimits:
    """What a call may take; see ``Client``."""

    timeout_s: float
    max_retries: int
    max_pause_s: float

    def allow(self, pause_s: float | None, waited_s: float) -> bool:
        """Whether there is time for another attempt after this pause; None: there is no point in one."""
        return pause_s is not None and pause_s <= self.max_pause_s and waited_s + pause_s < self.timeout_s


class OneServer:
    """The server of a URL."""

    def __init__(self, endpoint: Endpoint, limits: CallLimits):
        self._endpoint, self._limits = endpoint, limits

    @property
    def shown_url(self) -> str:
        return self._endpoint.shown_url

    @property
    def servers(self) -> tuple[ServerEntry, ...]:
        return (ServerEntry("given", self._endpoint.shown_url),)

    def close(self) -> None:
        return None

    def post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> Exchange:
        data = json_bytes(body)
        waited_s = 0.0
        for attempt in range(self._limits.max_retries + 1):
            begun_s = time.monotonic()
            try:
                exchange = send(self._endpoint, path, data, self._limits.timeout_s - waited_s)
                if exchange.status == 200:
                    return exchange.read() if is_whole else exchange
                error, pause_s = refusal(exchange, attempt)
            except NoAnswerError as failure:
                error = failure
                pause_s = None if isinstance(failure, LateError) else own_pause_s(attempt)
            waited_s += time.monotonic() - begun_s
            if attempt == self._limits.max_retries or not self._limits.allow(pause_s, waited_s):
                raise error
            time.sleep(pause_s or 0.0)
            waited_s += pause_s or 0.0
        raise AssertionError("the last attempt returns or raises")


def send(endpoint: Endpoint, path: str, data: bytes | None, left_s: float) -> Exchange:
    """One attempt that may take ``left_s``, of which the server is told."""
    headers = {"Content-Type": "application/json", "X-Request-Timeout-S": f"{left_s:.3f}"}
    method = "GET" if data is None else "POST"
    return endpoint.open(method, path, left_s + min(TIMEOUT_GRACE_S, left_s / 2), data, headers)


def json_bytes(body: dict[str, Any] | None) -> bytes | None:
    """Raise ``SetupError`` for what JSON cannot say."""
    if body is None:
        return None
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as failure:
        raise SetupError(f"the options cannot be written as JSON: {failure}") from None
