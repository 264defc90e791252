"""How Anthropic's API tells failures. HTTP threads; pure functions."""

from __future__ import annotations

from app.core.errors import RequestError, UnsupportedParameterError
from app.http.dialects.field_names import FieldNames, renamed
from app.serve.incoming.error_forms import MessagesError, messages_envelope

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
    told = messages_envelope(message, request_id, status)
    if isinstance(error, ThreadUnsupportedError):
        told["error"]["details"] = {"error_code": "thread_unsupported_request"}
    return told
