"""A gRPC call and its answer, in the form that the client reads of HTTP: JSON, or events of a stream."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import requests

from ..client_errors import ClientError, ForeignAnswerError, LateError, NoAnswerError, SetupError, StreamEndedError
from ..error_reading import make_error
from ..fields import shortened
from .exchange import Answer
from .grpc_address import GrpcAddress
from .grpc_messages import SERVICE, GrpcRequest, answer_of, event_of

# Statuses that gRPC itself gives, by what they would be over HTTP.
STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
# Such errors say nothing of whether asking again would help; these are asked again as over HTTP.
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
NOT_RETRIED = "insufficient_memory"
# As requests reads them.
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
FINISHED = b"data: [DONE]\n\n"
# gRPC's own are 20 s for a connection, and up to two minutes of not trying after one that failed.
CONNECT_LIMIT_MS = 3000
LONGEST_REST_MS = 2000


def open_channel(address: GrpcAddress, most_bytes: int) -> grpc.Channel:
    """A connection that is made with the first call."""
    options = [
        ("grpc.max_receive_message_length", most_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),
        # Despite its name the limit of an attempt to connect.
        ("grpc.min_reconnect_backoff_ms", CONNECT_LIMIT_MS),
        ("grpc.max_reconnect_backoff_ms", LONGEST_REST_MS),
    ]
    if address.is_secure:
        credentials = grpc.ssl_channel_credentials(_authorities())
        return grpc.secure_channel(address.target, credentials, options)
    return grpc.insecure_channel(address.target, options)


def _authorities() -> bytes:
    """Whom HTTPS would trust. Raises ``SetupError``."""
    file = next(filter(None, map(os.environ.get, BUNDLES)), None) or requests.utils.DEFAULT_CA_BUNDLE_PATH
    try:
        return Path(file).read_bytes()
    except OSError as failure:
        raise SetupError(f"the certificates in {file} cannot be read: {failure.strerror}") from None


def metadata_of(address: GrpcAddress, limit_s: float) -> tuple[tuple[str, str], ...]:
    """The key, and the limit of which the server is told."""
    return *address.metadata, ("x-request-timeout-s", f"{limit_s:.3f}")


class GrpcExchange:
    """One call; a context that cancels it. ``was_taken``: the server said that it counts the call."""

    def __init__(
        self,
        channel: grpc.Channel,
        address: GrpcAddress,
        request: GrpcRequest,
        metadata: tuple[tuple[str, str], ...],
        limit_s: float,
    ):
        # The connection lives as long as its calls.
        self._channel, self._address, self._limit_s, self._metadata = channel, address, limit_s, metadata
        self._request, self._method = request, request.method
        self._call: Any = None
        self._is_cancelled = self.was_taken = False
        # When anything came last, on ``time.monotonic()``; None until then.
        self.heard_s: float | None = None
        self.trailers: Mapping[str, str] = {}
        self.on_close: Callable[[], None] | None = None
        self._first: list[Any] = []
        self._data: bytes | None = None
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.pause_s: float | None = None

    def __enter__(self) -> GrpcExchange:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what still runs; may be called again."""
        call, self._call = getattr(self, "_call", None), None
        if call is not None:
            call.cancel()
        on_close, self.on_close = getattr(self, "on_close", None), None
        if on_close is not None:
            on_close()

    def cancel(self) -> None:
        """Break the call off: whoever reads it is told. From any thread."""
        self._is_cancelled = True
        call = self._call
        if call is not None:
            call.cancel()

    def begin(self) -> None:
        """Send the call; of a stream, wait for its first message. Raises ``ClientError``."""
        method = self._method
        ask = self._channel.unary_stream(
            f"/{SERVICE}/{method.name}",
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.reply.FromString,
        )
        self._call = ask(self._request.message, timeout=self._limit_s, metadata=self._metadata)
        if self._is_cancelled:
            self._call.cancel()
        first = next(self._messages(NoAnswerError), None)
        if first is None:
            raise ForeignAnswerError(f"{self._address.shown_url} answered nothing")
        self._first = [first]
        self.headers = dict(self._call.initial_metadata())

    def read(self) -> GrpcExchange:
        """Fetch the whole answer now. Raises ``ClientError``."""
        self._first += self._messages(NoAnswerError)
        self.close()
        return self

    def whole(self) -> Answer:
        """The answer as JSON."""
        if self._data is None:
            self._data = json.dumps(answer_of(self._method, self._first[0])).encode()
        return Answer(self._address.shown_url, self.status, self.headers, self._data)

    def pieces(self, size: int | None = None) -> Iterator[bytes]:
        """The stream as events. Raises ``ClientError``: ``StreamEndedError`` where it breaks off."""
        yield from map(self._event, self._first)
        yield from map(self._event, self._messages(StreamEndedError))
        yield FINISHED

    def hidden(self, text: str) -> str:
        """``text`` without the key."""
        return self._address.hidden(text)

    def require_events(self) -> None:
        """A stream of messages is one of events."""

    def _event(self, message: Any) -> bytes:
        return f"data: {json.dumps(event_of(self._method, message))}\n\n".encode()

    def _messages(self, broken: type[ClientError]) -> Iterator[Any]:
        """What comes; the error of a call that failed."""
        call = self._call
        if call is None:
            return
        try:
            for message in call:
                self.was_taken, self.heard_s = True, time.monotonic()
                yield message
        except grpc.RpcError as failure:
            self.was_taken = self.was_taken or bool(call.initial_metadata())
            raise self._error(failure, broken) from None
        finally:
            if call.done():
                self.trailers = _texts(call.trailing_metadata())

    def _error(self, failure: Any, broken: type[ClientError]) -> ClientError:
        """The server's own error where it told one, else what gRPC says."""
        said = self._address.hidden(shortened(failure.details() or failure.code().name))
        trailers = _texts(failure.trailing_metadata())
        status = STATUSES.get(failure.code())
        if (code := trailers.get("forklift-code")) is not None:
            self.pause_s = _pause_s(trailers, failure.code(), code)
            request_id = dict(failure.initial_metadata() or ()).get("x-request-id")
            told = {"message": said, "code": code, "param": _unquoted(trailers.get("forklift-param"))}
            return make_error({"error": told, "request_id": request_id}, status)
        if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return LateError(f"{self._address.shown_url}: no whole answer within {self._limit_s:g} s")
        if failure.code() is grpc.StatusCode.UNAVAILABLE:
            what = "cannot reach" if broken is NoAnswerError else "the connection broke off:"
            return broken(f"{what} {self._address.shown_url}: {said}")
        if failure.code() is grpc.StatusCode.CANCELLED:
            return broken(f"{self._address.shown_url}: the call was cancelled")
        return make_error({"error": {"message": said}}, status)


def _texts(metadata: Any) -> dict[str, str]:
    return {name: value for name, value in metadata or () if isinstance(value, str)}


def _pause_s(trailers: Mapping[str, str], status: grpc.StatusCode, code: str) -> float | None:
    """Seconds after which the server advises to ask again; None where it should not be asked again."""
    if status not in RETRIED or trailers.get("x-should-retry") == "false" or code == NOT_RETRIED:
        return None
    told = trailers.get("retry-after", "")
    return float(told) if told.isdecimal() else None


def _unquoted(param: str | None) -> str | None:
    return None if param is None else unquote(param)
