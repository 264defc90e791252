"""OpenAI's Responses API. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.core.errors import RequestError
from app.http.application.error_envelope import use_error_form
from app.http.dialects.field_names import renamed
from app.http.dialects.named_events import NamedEventRoute
from app.http.dialects.responses.responses_body import NAMES, ResponsesBody
from app.http.dialects.responses.responses_shape import ResponsesShape
from app.http.reading.body import read_body
from app.http.reading.validation import validate
from app.http.schemas.chat_body import ChatCompletionsBody
from app.serve.incoming.error_forms import Error


class Responses(NamedEventRoute):
    """Answers a conversation, and keeps nothing of it."""

    def post(self) -> Response:
        body = read_body(ResponsesBody)
        use_error_form(responses_error)
        chat = validate(ChatCompletionsBody, body.as_chat())
        return self.converse(chat, ResponsesShape(body, chat))


def responses_error(error: RequestError, request_id: str, _status: int) -> Error:
    """OpenAI's envelope, with this API's names of chat's fields."""
    message, param = renamed(error, NAMES)
    detail = error.body()
    detail["message"], detail["param"] = message, param
    return {"error": detail, "request_id": request_id}
