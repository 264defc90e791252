"""``/complete`` and ``/chat``. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.http.answers.native_shapes import ChatShape, CompletionShape
from app.http.reading.body import read_body
from app.http.resources.text_route import TextRoute
from app.http.schemas.native_bodies import ChatBody, CompleteBody


class Complete(TextRoute):
    """Continues a text."""

    def post(self) -> Response:
        body = read_body(CompleteBody)
        return self.complete(body, CompletionShape(body))


class Chat(TextRoute):
    """Answers a conversation."""

    def post(self) -> Response:
        body = read_body(ChatBody)
        return self.chat(body, ChatShape(body))
