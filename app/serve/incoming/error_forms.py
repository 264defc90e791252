"""How each API tells a failure: which form stands at which path. Any thread; pure.

Used by the application, and by a worker for what never reaches that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, Protocol

from typing_extensions import TypedDict

from app.core.errors import ErrorDetail, RequestError

TeiErrorKind = Literal["Validation", "Overloaded", "Backend"]
TgiErrorKind = Literal["validation", "overloaded", "generation"]
MessagesErrorKind = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "api_error",
    "timeout_error",
    "overloaded_error",
]


class Error(TypedDict):
    """The envelope of every failure."""

    error: ErrorDetail
    request_id: str


class CohereError(TypedDict):
    """A failure, as Cohere's API tells it."""

    id: str
    message: str


class TeiError(TypedDict):
    """A failure, as text-embeddings-inference tells it."""

    error: str
    error_type: TeiErrorKind


class TgiError(TypedDict):
    """A failure."""

    error: str
    error_type: TgiErrorKind


class InferError(TypedDict):
    """A failure, as the Open Inference Protocol tells one."""

    error: str


class ErrorDetails(TypedDict):
    """What Anthropic's clients act on."""

    error_code: Literal["thread_unsupported_request"]


class MessagesErrorDetail(TypedDict):
    """What went wrong."""

    type: MessagesErrorKind
    message: str
    details: NotRequired[ErrorDetails]


class MessagesError(TypedDict):
    """Anthropic's envelope."""

    type: Literal["error"]
    error: MessagesErrorDetail
    request_id: str


class ErrorForm(Protocol):
    """The JSON of a failure, from the error, the request's id and the status."""

    def __call__(self, error: RequestError, request_id: str, status: int, /) -> Mapping[str, object]: ...


def own_form(error: RequestError, request_id: str, _status: int) -> Error:
    """The envelope, whatever the status."""
    return {"error": error.body(), "request_id": request_id}


def cohere_error(error: RequestError, request_id: str, _status: int) -> CohereError:
    """As Cohere's API tells a failure."""
    return {"id": request_id, "message": error.message}


def tei_error(error: RequestError, _request_id: str, status: int) -> TeiError:
    """As text-embeddings-inference tells a failure."""
    kind: TeiErrorKind = "Validation" if 400 <= status < 500 else "Overloaded" if status == 503 else "Backend"
    return {"error": error.message, "error_type": kind}


def tgi_error(error: RequestError, _request_id: str, status: int) -> TgiError:
    """As text-generation-inference tells a failure."""
    kind: TgiErrorKind = "validation" if 400 <= status < 500 else "overloaded" if status == 503 else "generation"
    return {"error": error.message, "error_type": kind}


def infer_error(error: RequestError, _request_id: str, _status: int) -> InferError:
    """As the Open Inference Protocol tells a failure."""
    return {"error": error.message}


# The statuses are ours; the kinds of those that Anthropic has, too, are Anthropic's.
_MESSAGES_KINDS: Mapping[int, MessagesErrorKind] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def messages_envelope(message: str, request_id: str, status: int) -> MessagesError:
    """Anthropic's envelope around ``message``."""
    kind = _MESSAGES_KINDS.get(status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def messages_form(error: RequestError, request_id: str, status: int) -> MessagesError:
    """As Anthropic's API tells a failure, where no field of its body is known."""
    return messages_envelope(error.message, request_id, status)


# Paths whose callers expect another form than ours, whatever the body is; where the body decides, the route says so.
FORMS: Mapping[str, ErrorForm] = {
    "/v1/messages": messages_form,
    "/v1/messages/count_tokens": messages_form,
    "/v1/rerank": cohere_error,
    "/v2/rerank": cohere_error,
    "/embed": tei_error,
    "/similarity": tei_error,
    "/predict": tei_error,
    "/info": tei_error,
    "/v2": infer_error,
    "/v2/health/live": infer_error,
    "/v2/health/ready": infer_error,
    "/generate": tgi_error,
    "/generate_stream": tgi_error,
}
# Below it every path is a model's.
OF_MODELS = "/v2/models/"
# Where callers look for the request's id beside X-Request-Id.
ID_HEADERS = {path: "Request-Id" for path, form in FORMS.items() if form is messages_form}
ID_HEADER = "X-Request-Id"


def form_at(path: str) -> ErrorForm:
    """The form at ``path``, below PATH_PREFIX."""
    return infer_error if path.startswith(OF_MODELS) else FORMS.get(path, own_form)


def id_headers_at(path: str) -> tuple[str, ...]:
    """The headers that tell the request's id."""
    return (ID_HEADER, ID_HEADERS[path]) if path in ID_HEADERS else (ID_HEADER,)


def form_below(sent: str) -> ErrorForm:
    """The form at a path as it was sent, whatever PATH_PREFIX is."""
    return infer_error if OF_MODELS in sent else form_at(_known(sent))


def id_headers_below(sent: str) -> tuple[str, ...]:
    """The headers that tell the request's id at a path as it was sent."""
    return id_headers_at(_known(sent))


def _known(sent: str) -> str:
    return next((path for path in FORMS if sent.endswith(path)), sent)
