"""Streams whose events bear a name, the ``type`` in their JSON, and that end without ``[DONE]``. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from app.core.errors import RequestError
from app.http.answers.native_shapes import Shape
from app.http.answers.stream import EventWriter, Writer, event
from app.http.dialects.chat_route import ChatRoute, ConversationShape
from app.http.reading.strict_json import dump
from app.http.requests.job_output import Piece
from app.http.requests.running import RunningRequest
from app.http.schemas.sampling_fields import SamplingOptions

NamedEvent = Mapping[str, Any]


class NamedEventShape(ConversationShape, Protocol):
    """The answers of an API with such streams. ``ping`` is what goes out where nothing else does."""

    ping: bytes

    def first(self, generation: RunningRequest) -> Iterable[NamedEvent]: ...
    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[NamedEvent]: ...
    def last(self, generation: RunningRequest) -> Iterable[NamedEvent]: ...

    def failed(self, error: RequestError, request_id: str) -> Iterable[NamedEvent]:
        """The events of a stream that fails, wherever it is."""


class NamedEventRoute(ChatRoute):
    """A route that answers conversations, streamed in that form."""

    def writer(self, body: SamplingOptions, shape: Shape) -> Writer:
        return NamedEventWriter(cast(NamedEventShape, shape))


class NamedEventWriter:
    """``text/event-stream`` in that form."""

    mimetype = EventWriter.mimetype

    def __init__(self, shape: NamedEventShape):
        self._shape = shape
        self.ping = shape.ping

    def first(self, generation: RunningRequest) -> bytes:
        return named_events(self._shape.first(generation))

    def piece(self, piece: Piece, generation: RunningRequest) -> bytes:
        return named_events(self._shape.piece(piece, generation))

    def last(self, generation: RunningRequest) -> bytes:
        return named_events(self._shape.last(generation))

    def error(self, error: RequestError, request_id: str) -> bytes:
        return named_events(self._shape.failed(error, request_id))


def named_events(values: Iterable[NamedEvent]) -> bytes:
    """One event for each of ``values``."""
    return b"".join(f"event: {value['type']}\n".encode() + event(dump(value)) for value in values)
