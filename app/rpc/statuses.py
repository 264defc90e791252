"""Which gRPC status an error of ours is, and what stands behind the call that failed. Pure data and functions."""

from __future__ import annotations

from urllib.parse import quote

import grpc

from app.core.errors import RequestError

Metadata = tuple[tuple[str, str], ...]

# By the code of the error where it says more than its HTTP status.
_BY_CODE = {
    "context_length_exceeded": grpc.StatusCode.OUT_OF_RANGE,
    "overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_BY_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status_of(error: RequestError) -> grpc.StatusCode:
    """The status that callers see."""
    return _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, grpc.StatusCode.INTERNAL)


def trailers_of(error: RequestError) -> Metadata:
    """Code, field at fault, advice to try again."""
    found = [("forklift-code", error.code)]
    if error.param is not None:
        found.append(("forklift-param", quote(error.param, safe="")))
    return (*found, *((name.lower(), value) for name, value in error.headers().items()))
