"""``/complete`` and ``/chat``. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.http.answers import ChatShape, CompletionShape
from app.http.body import read_body
from app.http.resources.generating import GeneratingRoute
from app.http.schemas.native import ChatBody, CompleteBody


class Complete(GeneratingRoute):
    """Continues a text."""

    def post(self) -> Response:
        body = read_body(CompleteBody)
        return self.complete(body, CompletionShape(body))


class Chat(GeneratingRoute):
    """Answers a conversation."""

    def post(self) -> Response:
        body = read_body(ChatBody)
        return self.chat(body, ChatShape(body))
