"""Every failure becomes the JSON envelope of DESIGN 1.3, on every route.

HTTP threads. Known errors keep their own status and text; an unexpected one is logged with its
traceback under the request id and answered with a generic text.
"""

from __future__ import annotations

import time

from flask import Response, current_app, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from app.core.errors import (
    BadRequestError,
    BodyTimeoutError,
    BodyTooLargeError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
    UnsupportedMediaTypeError,
)
from app.core.logs.logging import get_logger
from app.http.answers.native_types import PromptAnswer
from app.http.application.request_log import record
from app.http.reading.strict_json import dump
from app.serve.incoming.error_forms import Error, ErrorForm, form_at

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

log = get_logger("http")


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``value`` as a UTF-8 JSON answer."""
    return Response(dump(value) + "\n", status=status, headers=headers, mimetype="application/json")


def error_body(error: RequestError, request_id: str) -> Error:
    """The envelope."""
    return {"error": error.body(), "request_id": request_id}


def use_error_form(form: ErrorForm) -> None:
    """Answer this request's errors as its caller expects, whatever its route has."""
    g.error_form = form


def prompt_error(error: RequestError, _request_id: str, status: int) -> PromptAnswer:
    """What ``POST /`` answers to ``{"prompt"}`` when it fails."""
    return prompt_form_body(error.message, status)


def error_response(failure: Exception) -> Response:
    """The answer to a request that failed; also notes the error for the request's log line."""
    if isinstance(failure, RequestRedirect):
        return Response(failure.get_response().get_data(), failure.code, {"Location": failure.new_url})
    error, line = as_request_error(failure), record()
    if isinstance(error, InternalError) and not isinstance(failure, RequestError):
        log_unexpected(failure, line.request_id)
    line.error = error
    if line.generation is not None:
        line.generation.fail(error)
    status = (failure.code or error.status) if isinstance(failure, HTTPException) else error.status
    headers = error.headers() | _own_headers(failure, status) | {"X-Request-Id": line.request_id}
    return json_response(_form()(error, line.request_id, status), status, headers)


def _form() -> ErrorForm:
    """What the request asked for; else its path's own, which holds before any of the route's code has run."""
    asked: ErrorForm = g.get("error_form") or form_at(request.path)
    return asked


def _own_headers(failure: Exception, status: int) -> dict[str, str]:
    """What HTTP itself asks for with a status."""
    if isinstance(failure, HTTPException):
        return {name: value for name, value in failure.get_headers() if name == "Allow"}
    return {"WWW-Authenticate": "Bearer"} if status == 401 else {}


def prompt_form_body(response: str, status: int) -> PromptAnswer:
    """What ``POST /`` answers to ``{"prompt"}``, errors included."""
    return {"response": response, "status": status, "time": time.strftime(TIME_FORMAT)}


def log_unexpected(failure: BaseException, request_id: str) -> None:
    """Write the traceback of a failure that we did not raise on purpose."""
    log.error("request_failed", request_id=request_id, exc_info=failure)


def as_request_error(failure: Exception) -> RequestError:
    """The error of our own tree that describes ``failure`` to the caller."""
    if isinstance(failure, RequestError):
        return failure
    if isinstance(failure, HTTPException):
        return _from_werkzeug(failure)
    return InternalError()


def _from_werkzeug(failure: HTTPException) -> RequestError:
    match failure.code:
        case 404:
            return NotFoundError("there is no such route")
        case 405:
            return MethodNotAllowedError("the route does not take this method")
        case 408:
            return BodyTimeoutError("the body was not received in time")
        case 413:
            limit = current_app.config["MAX_BODY_BYTES"]
            return BodyTooLargeError(f"the body is larger than {limit} bytes (FORKLIFT_MAX_BODY_BYTES)")
        case 415:
            return UnsupportedMediaTypeError("the content type is not supported")
        case code if code is not None and 400 <= code < 500:
            return BadRequestError(failure.description or failure.name)
        case _:
            return InternalError()
