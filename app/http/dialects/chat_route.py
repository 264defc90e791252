"""The one way to answer a conversation, in whichever API's form it came. HTTP threads.

A dialect is a translation in, from its body to chat's, and a translation out, from the parts of an answer to its events
and its whole; everything between is what ``/v1/chat/completions`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flask import Response

from app.core.errors import UnsupportedParameterError
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.http.answers.native_shapes import Shape
from app.http.answers.stream import EventWriter, Writer
from app.http.resources.text_route import TextRoute
from app.http.schemas.chat_body import ChatCompletionsBody
from app.http.schemas.sampling_fields import SamplingOptions

if TYPE_CHECKING:
    from app.models.text_model import Message, TextModel


class ConversationShape(Shape, Protocol):
    """A shape that tells the parts of an answer apart."""

    def read_as(self, form: AnswerForm) -> None:
        """How the answers are written: known once the prompt is."""


class EventsRoute(TextRoute):
    """A generating route whose streams are events, whatever ``Accept`` says."""

    def writer(self, body: SamplingOptions, shape: Shape) -> Writer:
        return EventWriter(shape)


class ChatRoute(EventsRoute):
    """A route that answers conversations."""

    def converse(self, body: ChatCompletionsBody, shape: ConversationShape) -> Response:
        """The answer, whole or streamed. Raises a ``RequestError``."""
        handle = self.handle_of(body)
        messages = body.conversation(handle.settings.system_prompt)

        def encode(model: TextModel) -> list[list[int]]:
            ids = encode_messages(body, messages, model)
            shape.read_as(body.answer_form(model, ids))
            return [ids]

        return self.answer(handle, body, shape, encode, messages)


def encode_messages(body: ChatCompletionsBody, messages: list[Message], model: TextModel) -> list[int]:
    """The ids of the conversation. Raises ``UnsupportedParameterError`` where the template knows no tools."""
    param = "tools" if body.shown_tools else "messages"
    if (body.shown_tools or body.has_tool_messages) and not model.has_tool_template:
        text = f"{param}: the chat template of the model {model.name} knows no tools"
        raise UnsupportedParameterError(text, param=param)
    return model.encode_chat(messages, body.shown_tools, **body.template_arguments(model), **body.prompt_end)
