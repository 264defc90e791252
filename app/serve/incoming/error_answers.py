"""Error answers that a worker gives without the application, in the form of the path that was asked for (DESIGN 1.3).

For requests that never become one: late, malformed or oversized. Nothing of the client's bytes
and nothing internal is sent back.
"""

from __future__ import annotations

import json
import ssl
import uuid
from dataclasses import dataclass
from http import HTTPStatus

from gunicorn.http import errors as http_errors

from app.core.errors import (
    BadRequestError,
    BodyTimeoutError,
    InternalError,
    OverloadedError,
    ReplicaLostError,
    RequestError,
    shutting_down,
)
from app.serve.incoming.error_forms import form_below, id_headers_below


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


class HeadTooLargeError(BadRequestError):
    status = 431
    code = "headers_too_large"


class UriTooLongError(BadRequestError):
    status = 414
    code = "uri_too_long"


class ExpectationError(BadRequestError):
    status = 417
    code = "expectation_failed"


class CodingError(BadRequestError):
    status = 501
    code = "unsupported_transfer_coding"


class ProxyError(BadRequestError):
    status = 403
    code = "forbidden"


class NotHttpError(BadRequestError):
    code = "bad_request"


class NotTlsError(BadRequestError):
    code = "https_required"


# Gunicorn's own parse errors with a status other than 400; looked up in this order.
_PARSE_ERRORS: tuple[tuple[type[Exception], RequestError], ...] = (
    (http_errors.LimitRequestLine, UriTooLongError("the request line is too long")),
    (http_errors.LimitRequestHeaders, HeadTooLargeError("the request's headers are too large")),
    (http_errors.ExpectationFailed, ExpectationError("this expectation is not supported")),
    (http_errors.UnsupportedTransferCoding, CodingError("this coding is not supported")),
    (http_errors.ForbiddenProxyRequest, ProxyError("the proxy protocol is not allowed from this address")),
)


def body_timeout() -> RequestError:
    return BodyTimeoutError("the request was not received in time")


def out_of_memory() -> RequestError:
    """For a client whose body does not fit beside those of the others."""
    return OverloadedError("too many large requests at once")


def head_too_large() -> RequestError:
    return HeadTooLargeError("the request's headers are too large")


def invalid_request() -> RequestError:
    return NotHttpError("the request is not valid HTTP")


def unsupported_coding() -> RequestError:
    return CodingError("this coding is not supported")


def no_threads() -> RequestError:
    """Where the machine lets the worker start no thread that could serve a request."""
    return OverloadedError("the server cannot start a thread")


def no_descriptors() -> RequestError:
    return OverloadedError("too many connections at once")


def stopping() -> RequestError:
    """For whoever comes while the server shuts down."""
    return shutting_down()


def failed() -> RequestError:
    """For what went wrong on our side; the log says what."""
    return InternalError()


def replica_lost() -> RequestError:
    """In the place of what a cluster's proxy says of a replica that is gone."""
    return ReplicaLostError("the replica that had the request is gone")


def not_tls() -> RequestError:
    return NotTlsError("this port speaks HTTPS: the URL begins with https")


def of_exception(failure: Exception) -> RequestError:
    """What to say of what Gunicorn raised while it parsed or served a request."""
    for kind, error in _PARSE_ERRORS:
        if isinstance(failure, kind):
            return error
    return invalid_request() if is_client_fault(failure) else InternalError()


def is_client_fault(failure: Exception) -> bool:
    """Whether the request was at fault; a header that the application made wrong is our fault."""
    ours = (
        http_errors.InvalidResponseHeader,
        http_errors.InvalidResponseHeaderName,
        http_errors.ConfigurationProblem,
    )
    return isinstance(failure, (http_errors.ParseException, ssl.SSLError)) and not isinstance(failure, ours)


def answer_to(path: str, error: RequestError) -> Answer:
    """The response, as the API at ``path`` tells a failure; our own envelope where none is known."""
    request_id = uuid.uuid4().hex
    body = json.dumps(form_below(path)(error, request_id, error.status)).encode() + b"\n"
    given = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **dict.fromkeys(id_headers_below(path), request_id),
        **error.headers(),
    }
    return Answer(error.status, error.code, request_id, tuple(given.items()), body)
