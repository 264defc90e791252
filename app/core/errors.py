"""Every error that Forklift raises on purpose, and what a caller is told about it.

Knows nothing of Flask: ``app/http`` turns a ``RequestError`` into the JSON envelope.

    ForkliftError
    ├── StartError                     the server cannot start: one clear line, exit code 3
    │   ├── SettingsError              a setting is unknown or invalid
    │   ├── DeviceError                the promised device cannot be used
    │   └── ModelLoadError             the model folder is missing, incomplete or too large
    └── RequestError                   one request fails; carries status, type, code, param
        ├── BadRequestError            400
        │   ├── InvalidJsonError
        │   ├── InvalidParameterError
        │   ├── UnsupportedParameterError
        │   ├── ContextLengthError
        │   └── ConstraintTooCostlyError
        ├── UnauthorizedError          401
        ├── ForbiddenError             403  a page of another origin
        │   └── KeysNeededError             what only a server with API keys allows
        ├── MisdirectedError           421  a Host that is not this server's
        ├── NotFoundError              404
        │   └── ModelNotFoundError
        ├── MethodNotAllowedError      405
        ├── BodyTimeoutError           408
        ├── BodyTooLargeError          413
        ├── UnsupportedMediaTypeError  415
        ├── InternalError              500  generic text; the cause is logged, never sent
        ├── UnavailableError           503  with Retry-After
        │   ├── OverloadedError
        │   ├── LoadingError
        │   ├── LoadFailedError
        │   │   └── AdapterFailedError
        │   ├── InsufficientMemoryError
        │   ├── ReplicaLostError
        │   └── ShuttingDownError
        └── DeadlineError              504  with X-Should-Retry: false
            ├── QueueTimeoutError
            └── RequestTimeoutError
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import TypedDict


class ErrorDetail(TypedDict):
    """What went wrong, in OpenAI's form: `param` is the field at fault, `code` is stable and for programs."""

    message: str
    type: str
    param: str | None
    code: str


class ForkliftError(Exception):
    """Base of everything that is raised on purpose."""


class StartError(ForkliftError):
    """The server cannot start; the message is one line for the operator."""


class SettingsError(StartError):
    """A ``FORKLIFT_`` setting is unknown or has an invalid value."""


class DeviceError(StartError):
    """The device that was asked for or promised cannot be used."""


class ModelLoadError(StartError):
    """The model cannot be loaded from where the settings point."""


class RequestError(ForkliftError):
    """One request fails. ``message`` is shown to the caller, so it never holds internals.

    ``param`` names the field at fault. ``retry_after_s`` becomes ``Retry-After``; each class has its own advice, and
    whoever knows better gives a number, of which a second is the least.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    should_retry: ClassVar[bool | None] = None
    retry_after_s: int | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None):
        super().__init__(message)
        self.message = message
        self.param = param
        if retry_after_s is not None:
            self.retry_after_s = max(1, retry_after_s)

    def body(self) -> ErrorDetail:
        """The ``error`` object of the envelope (DESIGN 1.3)."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def headers(self) -> dict[str, str]:
        """Headers that advise the caller whether and when to try again."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.should_retry is not None:
            headers["X-Should-Retry"] = "true" if self.should_retry else "false"
        return headers


class BadRequestError(RequestError):
    status = 400
    type = "invalid_request_error"
    code = "bad_request"


class InvalidJsonError(BadRequestError):
    code = "invalid_json"


class InvalidParameterError(BadRequestError):
    code = "invalid_parameter"


class UnsupportedParameterError(BadRequestError):
    """The field is unknown, or known and not supported by this model or server."""

    code = "unsupported_parameter"


class ContextLengthError(BadRequestError):
    code = "context_length_exceeded"


class ConstraintTooCostlyError(BadRequestError):
    """A schema or regular expression asks for more time or memory than one request gets."""

    code = "constraint_too_costly"


class UnauthorizedError(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class ForbiddenError(RequestError):
    status = 403
    type = "permission_error"
    code = "cross_site_request"


class KeysNeededError(ForbiddenError):
    code = "api_keys_needed"


class MisdirectedError(RequestError):
    status = 421
    type = "invalid_request_error"
    code = "host_not_allowed"


class NotFoundError(RequestError):
    status = 404
    type = "not_found_error"
    code = "route_not_found"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class MethodNotAllowedError(RequestError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class BodyTimeoutError(RequestError):
    status = 408
    type = "invalid_request_error"
    code = "body_timeout"


class BodyTooLargeError(RequestError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class UnsupportedMediaTypeError(RequestError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class InternalError(RequestError):
    """Something failed that the caller cannot help; the text is always the same."""

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has the cause under this request id")


class UnavailableError(RequestError):
    """A helper process of ours could not do its part; it is started again."""

    status = 503
    type = "unavailable_error"
    code = "unavailable"
    retry_after_s = 5


class OverloadedError(UnavailableError):
    """There is no room for the request now. What only its places are missing knows when one will be free."""

    code = "overloaded"
    retry_after_s = 1


class LoadingError(UnavailableError):
    """The worker, or a model that stays loaded, is being loaded."""

    code = "loading"
    retry_after_s = 5


class LoadFailedError(UnavailableError):
    """A model that is loaded on demand could not be; the cause is logged, never sent."""

    code = "load_failed"
    retry_after_s = 10


class AdapterFailedError(LoadFailedError):
    """A LoRA adapter cannot be read or is another model's; the cause is logged, and others go on."""

    code = "adapter_failed"
    should_retry = False

    def __init__(self, name: str):
        super().__init__(f"the adapter {name} could not be loaded; the server's log has the cause")


class InsufficientMemoryError(UnavailableError):
    """A model that is loaded on demand does not fit beside those that stay loaded."""

    code = "insufficient_memory"
    retry_after_s = 60
    should_retry = False


class ReplicaLostError(UnavailableError):
    """The replica of a cluster that had the request ended before it answered."""

    code = "replica_lost"
    retry_after_s = 1


class ShuttingDownError(UnavailableError):
    code = "shutting_down"
    retry_after_s = 1


def shutting_down() -> ShuttingDownError:
    """What everybody is told who waits, runs or comes while the server stops."""
    return ShuttingDownError("the server is shutting down")


class DeadlineError(RequestError):
    """OpenAI's client repeats every 5xx twice unless told not to: one 504 would cost three runs."""

    status = 504
    type = "timeout_error"
    code = "timeout"
    should_retry = False


class QueueTimeoutError(DeadlineError):
    code = "queue_timeout"


class RequestTimeoutError(DeadlineError):
    code = "request_timeout"
