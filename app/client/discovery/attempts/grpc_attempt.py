"""Calls over gRPC at one of many servers: one connection to each, for all calls. Needs the extra ``grpc``."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from ...connection.grpc_address import GrpcAddress
from ...connection.grpc_exchange import GrpcExchange, metadata_of, open_channel
from ...connection.grpc_messages import GrpcRequest
from ...connection.grpc_server import MOST_BYTES
from ...connection.one_server import TIMEOUT_GRACE_S
from ..server_entry import ServerEntry
from .attempt import Attempt, AttemptAt

PROBE = "/grpc.health.v1.Health/Check"
PROBE_LIMIT_S = 2.0
# No answer at all; any other status is one.
SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class Line:
    """A server's address and the connection to it, which is made with the first call."""

    address: GrpcAddress
    channel: grpc.Channel


class GrpcWay:
    """Raises ``SetupError`` for a key that cannot be sent."""

    ports = "a gRPC port"

    def __init__(self, api_key: str | None):
        self._api_key = api_key
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        GrpcAddress("grpc://localhost", api_key)

    def can_reach(self, entry: ServerEntry) -> bool:
        return entry.grpc is not None

    def attempts(self, path: str, body: dict[str, Any] | None) -> AttemptAt:
        return partial(self._attempt, GrpcRequest.of(path, body))

    def is_alive(self, entry: ServerEntry) -> bool:
        check = self._line(entry).channel.unary_unary(PROBE)
        try:
            check(b"", timeout=PROBE_LIMIT_S)
        except grpc.RpcError as failure:
            return failure.code() not in SILENT
        return True

    def keep(self, entries: Sequence[ServerEntry]) -> None:
        kept = {url_of(entry) for entry in entries if entry.grpc is not None}
        with self._lock:
            # A connection that nobody holds ends with its last call.
            self._lines = {url: line for url, line in self._lines.items() if url in kept}

    def close(self) -> None:
        self.keep(())

    def _attempt(self, request: GrpcRequest, entry: ServerEntry, limit_s: float) -> Attempt:
        return GrpcAttempt(self._line(entry), request, limit_s)

    def _line(self, entry: ServerEntry) -> Line:
        url = url_of(entry)
        with self._lock:
            if url not in self._lines:
                address = GrpcAddress(url, self._api_key)
                self._lines[url] = Line(address, open_channel(address, MOST_BYTES))
            return self._lines[url]


class GrpcAttempt:
    """Its time ends ``limit_s`` from now, and a moment later where the server tells that it is over."""

    def __init__(self, line: Line, request: GrpcRequest, limit_s: float):
        longest_s = limit_s + min(TIMEOUT_GRACE_S, limit_s / 2)
        metadata = metadata_of(line.address, limit_s)
        self._exchange = GrpcExchange(line.channel, line.address, request, metadata, longest_s)
        self._begun_s = time.monotonic()
        self.was_cut = False

    @property
    def heard_s(self) -> float:
        return self._exchange.heard_s or self._begun_s

    @property
    def has_reached(self) -> bool:
        return self._exchange.was_taken

    @property
    def advised_s(self) -> float | None:
        return self._exchange.pause_s

    @property
    def told_load(self) -> str | None:
        return self._exchange.trailers.get("x-load")

    def answer(self, is_whole: bool) -> GrpcExchange:
        self._exchange.begin()
        return self._exchange.read() if is_whole else self._exchange

    def cut(self) -> None:
        self.was_cut = True
        self._exchange.cancel()

    def close(self) -> None:
        self._exchange.close()


def url_of(entry: ServerEntry) -> str:
    """The gRPC port's, which has TLS where HTTP's has."""
    return f"{'grpcs' if entry.http.startswith(('https', 'grpcs')) else 'grpc'}://{entry.grpc}"
