"""Error answers that a worker gives without the application: the same JSON envelope (DESIGN 1.3).

For requests that never become one: late, malformed or oversized. Nothing of the client's bytes
and nothing internal is sent back.
"""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from gunicorn.http import errors as http_errors

from app.core.errors import (
    BodyTimeoutError,
    InternalError,
    OverloadedError,
    ReplicaLostError,
    RequestError,
    shutting_down,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response; ``request_id`` names it in the log, ``code`` is that of its error."""

    status: int
    code: str
    request_id: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def data(self) -> bytes:
        """Head and body as they go over a connection, which ends behind them."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


# Gunicorn's own parse errors with a status other than 400; looked up in this order.
_PARSE_ERRORS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (http_errors.LimitRequestLine, 414, "uri_too_long", "the request line is too long"),
    (http_errors.LimitRequestHeaders, 431, "headers_too_large", "the request's headers are too large"),
    (http_errors.ExpectationFailed, 417, "expectation_failed", "this expectation is not supported"),
    (http_errors.UnsupportedTransferCoding, 501, "unsupported_transfer_coding", "this coding is not supported"),
    (http_errors.ForbiddenProxyRequest, 403, "forbidden", "the proxy protocol is not allowed from this address"),
)


def body_timeout() -> Answer:
    return _of_error(BodyTimeoutError("the request was not received in time"))


def out_of_memory() -> Answer:
    """For a client whose body does not fit beside those of the others."""
    return _of_error(OverloadedError("too many large requests at once"))


def head_too_large() -> Answer:
    return _answer(431, "invalid_request_error", "headers_too_large", "the request's headers are too large")


def invalid_request() -> Answer:
    return _answer(400, "invalid_request_error", "bad_request", "the request is not valid HTTP")


def unsupported_coding() -> Answer:
    return _answer(501, "invalid_request_error", "unsupported_transfer_coding", "this coding is not supported")


def no_threads() -> Answer:
    """Where the machine lets the worker start no thread that could serve a request."""
    return _of_error(OverloadedError("the server cannot start a thread"))


def no_descriptors() -> Answer:
    return _of_error(OverloadedError("too many connections at once"))


def stopping() -> Answer:
    """For whoever comes while the server shuts down."""
    return _of_error(shutting_down())


def failed() -> Answer:
    """For what went wrong on our side; the log says what."""
    return _of_error(InternalError())


def replica_lost() -> Answer:
    """In the place of what a cluster's proxy says of a replica that is gone."""
    return _of_error(ReplicaLostError("the replica that had the request is gone"))


def not_tls() -> Answer:
    return _answer(400, "invalid_request_error", "https_required", "this port speaks HTTPS: the URL begins with https")


def of_exception(failure: Exception) -> Answer:
    """The answer to what Gunicorn raised while it parsed or served a request."""
    for kind, status, code, message in _PARSE_ERRORS:
        if isinstance(failure, kind):
            return _answer(status, "invalid_request_error", code, message)
    return invalid_request() if is_client_fault(failure) else _of_error(InternalError())


def is_client_fault(failure: Exception) -> bool:
    """Whether the request was at fault; a header that the application made wrong is our fault."""
    ours = (
        http_errors.InvalidResponseHeader,
        http_errors.InvalidResponseHeaderName,
        http_errors.ConfigurationProblem,
    )
    return isinstance(failure, (http_errors.ParseException, ssl.SSLError)) and not isinstance(failure, ours)


def _of_error(error: RequestError) -> Answer:
    return _answer(error.status, error.type, error.code, error.message, error.headers())


def _answer(status: int, kind: str, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    request_id = uuid.uuid4().hex
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error, "request_id": request_id}).encode() + b"\n"
    given = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Request-Id": request_id,
        **(headers or {}),
    }
    return Answer(status, code, request_id, tuple(given.items()), body)
