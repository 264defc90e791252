"""Asks one server over gRPC, for what its protocol has: again where that helps, within the time of the call.

Needs the extra ``grpc``. A call has the path, body and answer that it has over HTTP, so that everything else of the
client is the same.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ..asking_again import own_pause_s
from ..client_errors import ClientError, LateError, NoAnswerError, SetupError
from ..discovery.server_entry import ServerEntry
from .grpc_address import GrpcAddress
from .one_server import TIMEOUT_GRACE_S, CallLimits

if TYPE_CHECKING:
    from .grpc_exchange import GrpcExchange
    from .grpc_messages import GrpcRequest

# Answers are bounded by what is generated, and by this.
MOST_BYTES = 256 * 2**20


class GrpcServer:
    """The server of a ``grpc://`` URL; one connection for all threads. Raises ``SetupError``."""

    def __init__(self, url: str, api_key: str | None, limits: CallLimits):
        self._address, self._limits = GrpcAddress(url, api_key), limits
        try:
            from .grpc_exchange import open_channel
        except ImportError as failure:
            text = f"grpc:// needs the extra grpc (pip install 'forklift-serve[grpc]'): {failure}"
            raise SetupError(text) from None
        self._open_channel = open_channel
        self._lock = threading.Lock()
        self._channel: Any = None

    @property
    def shown_url(self) -> str:
        return self._address.shown_url

    @property
    def servers(self) -> tuple[ServerEntry, ...]:
        return (ServerEntry("given", self.shown_url),)

    def close(self) -> None:
        """Close the connection; calls that run end."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> GrpcExchange:
        """The answer, whole where that is wanted. Raises ``ClientError``."""
        from .grpc_messages import GrpcRequest

        request, waited_s = GrpcRequest.of(path, body), 0.0
        for attempt in range(self._limits.max_retries + 1):
            begun_s = time.monotonic()
            exchange = self._exchange(request, self._limits.timeout_s - waited_s)
            try:
                exchange.begin()
                return exchange.read() if is_whole else exchange
            except ClientError as failure:
                error = failure
                pause_s = exchange.pause_s
                if isinstance(error, NoAnswerError) and not isinstance(error, LateError):
                    pause_s = own_pause_s(attempt)
            waited_s += time.monotonic() - begun_s
            if attempt == self._limits.max_retries or not self._limits.allow(pause_s, waited_s):
                raise error
            time.sleep(pause_s or 0.0)
            waited_s += pause_s or 0.0
        raise AssertionError("the last attempt returns or raises")

    def _exchange(self, request: GrpcRequest, left_s: float) -> GrpcExchange:
        from .grpc_exchange import GrpcExchange, metadata_of

        limit_s = left_s + min(TIMEOUT_GRACE_S, left_s / 2)
        return GrpcExchange(self._connected(), self._address, request, metadata_of(self._address, left_s), limit_s)

    def _connected(self) -> Any:
        with self._lock:
            if self._channel is None:
                self._channel = self._open_channel(self._address, MOST_BYTES)
            return self._channel
