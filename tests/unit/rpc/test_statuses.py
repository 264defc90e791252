"""Each error has its gRPC status, its code and its advice."""

from __future__ import annotations

import pytest

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from app.core import errors
from app.http.description.openapi import error_classes
from app.rpc.statuses import status_of, trailers_of

STATUSES = [
    (errors.InvalidParameterError("x", param="a b"), "INVALID_ARGUMENT"),
    (errors.BodyTooLargeError("x"), "INVALID_ARGUMENT"),
    (errors.ContextLengthError("x"), "OUT_OF_RANGE"),
    (errors.UnauthorizedError("x"), "UNAUTHENTICATED"),
    (errors.ModelNotFoundError("x"), "NOT_FOUND"),
    (errors.OverloadedError("x"), "RESOURCE_EXHAUSTED"),
    (errors.LoadingError("x"), "UNAVAILABLE"),
    (errors.ShuttingDownError("x"), "UNAVAILABLE"),
    (errors.RequestTimeoutError("x"), "DEADLINE_EXCEEDED"),
    (errors.InternalError(), "INTERNAL"),
]


@pytest.mark.parametrize(("error", "name"), STATUSES, ids=lambda value: getattr(value, "code", value))
def test_an_error_has_its_status_and_its_code(error, name):
    assert status_of(error).name == name
    assert dict(trailers_of(error))["forklift-code"] == error.code


def test_only_what_is_our_own_fault_is_internal():
    for one in error_classes():
        error = one() if one is errors.InternalError else one("x")
        assert (status_of(error) is grpc.StatusCode.INTERNAL) == (error.status in (500, 415, 421))


def test_trailers_hold_advice_and_the_field_at_fault_in_ascii():
    found = dict(trailers_of(errors.OverloadedError("x", retry_after_s=7)))
    assert found == {"forklift-code": "overloaded", "retry-after": "7"}
    found = dict(trailers_of(errors.RequestTimeoutError("x", param="naïve field")))
    assert found == {
        "forklift-code": "request_timeout",
        "forklift-param": "na%C3%AFve%20field",
        "x-should-retry": "false",
    }
