"""Anthropic's API: messages, and how many tokens they have. HTTP threads."""

from __future__ import annotations

from functools import partial

from flask import Response

from app.http.application.error_envelope import json_response, use_error_form
from app.http.application.restful import Route
from app.http.dialects.chat_route import encode_messages
from app.http.dialects.messages.messages_body import (
    NAMES,
    ConversationBody,
    CountTokensBody,
    MessagesBody,
    ThinkingChat,
)
from app.http.dialects.messages.messages_error import messages_error
from app.http.dialects.messages.messages_shape import MessagesShape
from app.http.dialects.messages.messages_types import InputTokens
from app.http.dialects.named_events import NamedEventRoute
from app.http.reading.body import read_body
from app.http.reading.validation import validate
from app.http.requests.limits import naming
from app.http.requests.opening import admit


def as_chat(body: ConversationBody) -> ThinkingChat:
    """What the body asks of chat; what is wrong from then on is told by this API's names. Raises a ``RequestError``."""
    use_error_form(partial(messages_error, names=NAMES))
    return validate(ThinkingChat, body.as_chat())


class Messages(NamedEventRoute):
    """Answers a conversation."""

    def post(self) -> Response:
        use_error_form(messages_error)
        return self.converse(as_chat(read_body(MessagesBody)), MessagesShape(NAMES))


class CountTokens(Route):
    """Counts what a conversation's prompt would hold; takes a place, as tokenizing does."""

    def post(self) -> Response:
        use_error_form(messages_error)
        body = as_chat(read_body(CountTokensBody))
        handle = self.service.choose(body.model, "generate")
        messages = body.conversation(handle.settings.system_prompt)
        with admit(self.service.context, handle, "generate") as admitted:
            with naming("messages"):
                num_tokens = len(encode_messages(body, messages, admitted.text_model))
            admitted.release()
        counted: InputTokens = {"input_tokens": num_tokens}
        return json_response(counted)
