"""Streamed answers: server-sent events, or bare text for those who ask for it.

HTTP threads. Nothing may be raised once the first byte is out: Gunicorn's gthread worker counts
such a connection twice. A failure is an event instead, and the stream ends without ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from flask import Request, Response

from app.core.errors import InternalError, RequestError, UnsupportedParameterError
from app.http.answers import Shape
from app.http.completion import Batch, Piece
from app.http.errors import ClientGoneError, error_body, log_unexpected
from app.http.generation import Generation
from app.http.strict_json import dump

PING_INTERVAL_S = 10.0
TEXT_TYPES = ("text/plain", "application/octet-stream")
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Writer(Protocol):
    """Turns what happens into bytes; empty where the form has no way to say it."""

    mimetype: str
    ping: bytes

    def first(self, generation: Generation) -> bytes: ...
    def piece(self, piece: Piece, generation: Generation) -> bytes: ...
    def last(self, generation: Generation) -> bytes: ...
    def error(self, error: RequestError, request_id: str) -> bytes: ...


class EventWriter:
    """``text/event-stream``: one line of JSON per event."""

    mimetype = "text/event-stream"
    ping = b": ping\n\n"

    def __init__(self, shape: Shape):
        self._shape = shape

    def first(self, generation: Generation) -> bytes:
        return events(self._shape.first(generation))

    def piece(self, piece: Piece, generation: Generation) -> bytes:
        return events(self._shape.piece(piece, generation))

    def last(self, generation: Generation) -> bytes:
        return events(self._shape.last(generation)) + event("[DONE]")

    def error(self, error: RequestError, request_id: str) -> bytes:
        return event(dump(error_body(error, request_id)))


class TextWriter:
    """The bare text. It cannot tell a failure or how the completion ended."""

    ping = b""

    def __init__(self, mimetype: str, prefix: str):
        self.mimetype = mimetype
        self._prefix = prefix

    def first(self, generation: Generation) -> bytes:
        return self._prefix.encode()

    def piece(self, piece: Piece, generation: Generation) -> bytes:
        return piece.text.encode()

    def last(self, generation: Generation) -> bytes:
        return b""

    def error(self, error: RequestError, request_id: str) -> bytes:
        return b""


def event(data: str) -> bytes:
    """One server-sent event; JSON has no raw line breaks, so its text survives as one line."""
    return f"data: {data}\n\n".encode()


def events(values: Iterable[object]) -> bytes:
    """One event for each of ``values``."""
    return b"".join(event(dump(value)) for value in values)


def choose_writer(request: Request, shape: Shape, num_completions: int = 1) -> Writer:
    """Bare text where ``Accept`` names it and does not name events. It cannot tell completions apart."""
    accepted = {mimetype for mimetype, _ in request.accept_mimetypes}
    for mimetype in TEXT_TYPES:
        if mimetype in accepted and EventWriter.mimetype not in accepted:
            if num_completions > 1:
                raise UnsupportedParameterError(
                    "n: bare text holds one completion; accept text/event-stream", param="n"
                )
            return TextWriter(mimetype, shape.prefix)
    return EventWriter(shape)


def stream_response(generation: Generation, writer: Writer, ping_interval_s: float) -> Response:
    """The streamed answer; its status is decided here, by the first events. Raises their error."""
    first = generation.require_batch()
    chunks = _chunks(generation, first, writer, ping_interval_s)
    headers = HEADERS | generation.headers()
    headers.pop("X-Total-Ms", None)
    response = Response((chunk for chunk in chunks if chunk), mimetype=writer.mimetype, headers=headers)
    # Not left to the generator's own end: one that never started runs no `finally`.
    response.call_on_close(generation.close)
    return response


def _chunks(generation: Generation, first: Batch, writer: Writer, ping_interval_s: float) -> Iterator[bytes]:
    try:
        yield writer.first(generation)
        batch: Batch | None = first
        while batch is None or not (batch.is_last or batch.error):
            yield writer.ping if batch is None else _pieces(generation, batch, writer)
            batch = generation.next_batch(ping_interval_s)
        yield _pieces(generation, batch, writer) + _ending(generation, batch, writer)
    except ClientGoneError as error:
        generation.error = error
    except Exception as failure:
        generation.error = _as_error(generation, failure)
        yield writer.error(generation.error, generation.request_id)


def _pieces(generation: Generation, batch: Batch, writer: Writer) -> bytes:
    return b"".join(writer.piece(piece, generation) for piece in batch.pieces)


def _ending(generation: Generation, batch: Batch, writer: Writer) -> bytes:
    if batch.error is not None:
        return writer.error(batch.error, generation.request_id)
    return writer.last(generation)


def _as_error(generation: Generation, failure: Exception) -> RequestError:
    if isinstance(failure, RequestError):
        return failure
    log_unexpected(failure, generation.request_id)
    return InternalError()
