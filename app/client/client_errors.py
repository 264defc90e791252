"""What the client raises."""

from __future__ import annotations


class ClientError(Exception):
    """Base of everything that this module raises on purpose."""


class SetupError(ClientError):
    """What was given cannot be used: nothing was sent."""


class NoAnswerError(ClientError):
    """The server could not be reached, or the whole answer did not come in time."""


class NoServerError(NoAnswerError):
    """No server is known that could be asked."""


class LateError(NoAnswerError):
    """The time of the call is over: it is not asked again."""


class ForeignAnswerError(ClientError):
    """What answered is no Forklift server, or something between changed its answer."""


class StreamEndedError(ClientError):
    """A stream ended without its ``[DONE]``."""


class RequestError(ClientError):
    """The server answered that the request failed."""

    status: int = 0
    code: str = ""

    def __init__(self, message: str, *, status: int, code: str, param: str | None, request_id: str | None):
        super().__init__(message)
        self.message = message
        self.status, self.code = status, code
        self.param, self.request_id = param, request_id


class BadRequestError(RequestError):
    status = 400
    code = "bad_request"


class InvalidJsonError(BadRequestError):
    code = "invalid_json"


class InvalidParameterError(BadRequestError):
    code = "invalid_parameter"


class UnsupportedParameterError(BadRequestError):
    code = "unsupported_parameter"


class ContextLengthError(BadRequestError):
    code = "context_length_exceeded"


class ConstraintTooCostlyError(BadRequestError):
    code = "constraint_too_costly"


class UnauthorizedError(RequestError):
    status = 401
    code = "invalid_api_key"


class ForbiddenError(RequestError):
    status = 403
    code = "cross_site_request"


class KeysNeededError(ForbiddenError):
    code = "api_keys_needed"


class MisdirectedError(RequestError):
    status = 421
    code = "host_not_allowed"


class NotFoundError(RequestError):
    status = 404
    code = "route_not_found"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class MethodNotAllowedError(RequestError):
    status = 405
    code = "method_not_allowed"


class BodyTimeoutError(RequestError):
    status = 408
    code = "body_timeout"


class BodyTooLargeError(RequestError):
    status = 413
    code = "body_too_large"


class UnsupportedMediaTypeError(RequestError):
    status = 415
    code = "unsupported_media_type"


class InternalError(RequestError):
    status = 500
    code = "internal_error"


class UnavailableError(RequestError):
    status = 503
    code = "unavailable"


class OverloadedError(UnavailableError):
    code = "overloaded"


class LoadingError(UnavailableError):
    code = "loading"


class LoadFailedError(UnavailableError):
    code = "load_failed"


class AdapterFailedError(LoadFailedError):
    code = "adapter_failed"


class InsufficientMemoryError(UnavailableError):
    code = "insufficient_memory"


class ReplicaLostError(UnavailableError):
    code = "replica_lost"


class ShuttingDownError(UnavailableError):
    code = "shutting_down"


class DeadlineError(RequestError):
    status = 504
    code = "timeout"


class QueueTimeoutError(DeadlineError):
    code = "queue_timeout"


class RequestTimeoutError(DeadlineError):
    code = "request_timeout"
