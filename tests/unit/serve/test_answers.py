from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
from gunicorn.http import errors

from app.core.errors import RequestError
from app.serve.incoming import error_answers
from app.serve.incoming.error_forms import FORMS, form_at


def parts(error: RequestError, path: str = "/complete") -> tuple[str, dict[str, str], dict[str, Any]]:
    answer = error_answers.answer_to(path, error)
    head, _, body = answer.data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], dict(line.split(": ", 1) for line in lines[1:]), json.loads(body)


@pytest.mark.parametrize(
    ("error", "status_line", "code"),
    [
        (error_answers.body_timeout(), "HTTP/1.1 408 Request Timeout", "body_timeout"),
        (error_answers.out_of_memory(), "HTTP/1.1 503 Service Unavailable", "overloaded"),
        (error_answers.head_too_large(), "HTTP/1.1 431 Request Header Fields Too Large", "headers_too_large"),
        (error_answers.invalid_request(), "HTTP/1.1 400 Bad Request", "bad_request"),
        (error_answers.of_exception(errors.LimitRequestLine(9000, 4094)), "HTTP/1.1 414 ", "uri_too_long"),
        (error_answers.of_exception(errors.LimitRequestHeaders("x")), "HTTP/1.1 431 ", "headers_too_large"),
        (error_answers.of_exception(errors.ExpectationFailed("x")), "HTTP/1.1 417 ", "expectation_failed"),
        (
            error_answers.of_exception(errors.UnsupportedTransferCoding("x")),
            "HTTP/1.1 501 ",
            "unsupported_transfer_coding",
        ),
        (error_answers.of_exception(ssl.SSLError(1, "no TLS")), "HTTP/1.1 400 ", "bad_request"),
        (error_answers.of_exception(errors.InvalidHeader("<x>")), "HTTP/1.1 400 ", "bad_request"),
        (error_answers.of_exception(errors.InvalidResponseHeader("X")), "HTTP/1.1 500 ", "internal_error"),
        (error_answers.of_exception(RuntimeError("secret")), "HTTP/1.1 500 ", "internal_error"),
    ],
)
def test_every_answer_is_the_envelope_with_a_request_id(error, status_line, code):
    line, headers, body = parts(error)
    assert line.startswith(status_line)
    assert headers["Connection"] == "close"
    assert headers["X-Request-Id"] == body["request_id"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code


def test_nothing_of_the_request_or_the_failure_is_sent_back():
    for failure in (errors.InvalidHeader("<script>"), RuntimeError("secret")):
        data = error_answers.answer_to("/", error_answers.of_exception(failure)).data
        assert b"script" not in data
        assert b"secret" not in data


def test_a_refusal_for_lack_of_memory_says_when_to_try_again():
    assert parts(error_answers.out_of_memory())[1]["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages", {"type", "error", "request_id"}),
        ("/v1/messages/count_tokens", {"type", "error", "request_id"}),
        ("/below/a/prefix/v1/messages", {"type", "error", "request_id"}),
        ("/v1/rerank", {"id", "message"}),
        ("/embed", {"error", "error_type"}),
        ("/generate_stream", {"error", "error_type"}),
        ("/v1/responses", {"error", "request_id"}),
        ("/v1/chat/completions", {"error", "request_id"}),
        ("", {"error", "request_id"}),
    ],
)
@pytest.mark.parametrize("make", [error_answers.body_timeout, error_answers.head_too_large, error_answers.stopping])
def test_what_never_reaches_the_application_is_told_as_the_paths_api_tells_failures(path, shape, make):
    line, headers, body = parts(make(), path)
    assert set(body) == shape
    assert line.split()[1] == str(make().status)
    assert ("Request-Id" in headers) == ("messages" in path)


def test_kinds_of_failures_are_each_apis_own():
    assert parts(error_answers.body_timeout(), "/predict")[2]["error_type"] == "Validation"
    assert parts(error_answers.out_of_memory(), "/predict")[2]["error_type"] == "Overloaded"
    assert parts(error_answers.out_of_memory(), "/generate")[2]["error_type"] == "overloaded"
    assert parts(error_answers.out_of_memory(), "/v1/messages")[2]["error"]["type"] == "overloaded_error"


def test_the_forms_stand_at_routes_that_are_there():
    from app.http.application.factory import ROUTES

    assert set(FORMS) <= set(ROUTES)
    assert form_at("/v1/nothing") is form_at("/complete")
