"""How Anthropic's API tells failures. HTTP threads; pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.errors import RequestError, UnsupportedParameterError
from app.http.dialects.field_names import FieldNames, renamed
from app.http.dialects.messages.messages_types import MessagesError, MessagesErrorDetail, MessagesErrorKind

# The statuses are ours; the kinds of those that Anthropic has, too, are Anthropic's.
KINDS: Mapping[int, MessagesErrorKind] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
NO_NAMES: FieldNames = {}


class ThreadUnsupportedError(UnsupportedParameterError):
    """A conversation would have to be stored. Anthropic's clients go on without that where they are told so."""

    def __init__(self) -> None:
        super().__init__("thread: nothing is stored here; send the whole conversation in messages", param="thread")


def messages_error(error: RequestError, request_id: str, status: int, names: FieldNames = NO_NAMES) -> MessagesError:
    """The envelope, which has no place for the field at fault but the message; ``names`` are those of chat's fields."""
    message, param = renamed(error, names)
    if param is not None and param not in message:
        message = f"{param}: {message}"
    told: MessagesErrorDetail = {"type": KINDS.get(status, "invalid_request_error"), "message": message}
    if isinstance(error, ThreadUnsupportedError):
        told["details"] = {"error_code": "thread_unsupported_request"}
    return {"type": "error", "error": told, "request_id": request_id}
