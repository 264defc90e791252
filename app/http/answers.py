"""What the answers of the native routes look like, whole and streamed.

HTTP threads. A ``Shape`` turns a generation into JSON values; ``sse`` and the resources send them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from app.http.completion import Piece
from app.http.errors import prompt_form_body
from app.http.generation import Generation
from app.http.request_log import record
from app.http.schemas.common import GenerationOptions
from app.http.schemas.native import ChatBody, CompleteBody


class Shape(Protocol):
    """The JSON of one route."""

    prefix: str
    """Text that goes in front of each completion."""

    def whole(self, generation: Generation) -> object:
        """The answer, once the generation has ended."""

    def first(self, generation: Generation) -> Iterable[object]:
        """Events of a stream before anything that was generated."""

    def piece(self, piece: Piece, generation: Generation) -> Iterable[object]:
        """Events for what came."""

    def last(self, generation: Generation) -> Iterable[object]:
        """Events before ``[DONE]``."""


class CompletionShape:
    """``/complete``."""

    def __init__(self, body: CompleteBody):
        self.prefix = body.text if body.echo else ""
        self._body = body

    def whole(self, generation: Generation) -> object:
        return {"completion": self.prefix + generation.text, **details(generation, self._body)}

    def first(self, generation: Generation) -> Iterable[object]:
        return [{"completion": self.prefix}] if self.prefix else []

    def piece(self, piece: Piece, generation: Generation) -> Iterable[object]:
        return [{"completion": piece.text}] if piece.text else []

    def last(self, generation: Generation) -> Iterable[object]:
        return [{"completion": "", **details(generation, self._body)}]


class TextShape(CompletionShape):
    """``/`` with ``data``: a bare JSON string; streamed like ``/complete``."""

    def whole(self, generation: Generation) -> object:
        return self.prefix + generation.text


class ChatShape:
    """``/chat``."""

    prefix = ""

    def __init__(self, body: ChatBody):
        self._body = body

    def whole(self, generation: Generation) -> object:
        return {**self._head(generation, generation.text), **details(generation, self._body)}

    def first(self, generation: Generation) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: Generation) -> Iterable[object]:
        return [{"response": piece.text}] if piece.text else []

    def last(self, generation: Generation) -> Iterable[object]:
        return [{**self._head(generation, ""), **details(generation, self._body)}]

    def _head(self, generation: Generation, response: str) -> dict[str, object]:
        history = self._body.rounds(generation.text)
        return {**prompt_form_body(response, 200), "history": history}


class PromptShape(ChatShape):
    """``/`` with ``prompt``: three fields and nothing else; streamed like ``/chat``."""

    def whole(self, generation: Generation) -> object:
        return prompt_form_body(generation.text, 200)


def details(generation: Generation, body: GenerationOptions) -> dict[str, Any]:
    """What every native answer tells beside the text."""
    assert generation.has_ended_well, "only a generation that ended well is described"
    shown = {
        "finish_reason": generation.completions[0].finish_reason,
        "usage": generation.usage(),
        "timings": generation.timings().as_ms(),
        "model": generation.model,
        "request_id": generation.request_id,
    }
    return shown if body.recordid is None else {**shown, "recordid": body.recordid}


def note_request(body: GenerationOptions, model: str, prompt: object) -> None:
    """Tell the request's log line what was asked."""
    line = record()
    line.model, line.recordid, line.prompt = model, body.recordid, prompt
