"""Streamed answers: server-sent events, or bare text for those who ask for it.

HTTP threads. Nothing may be raised once the first byte is out: Gunicorn's gthread worker counts
such a connection twice. A failure is an event instead, and the stream ends without ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from flask import Request, Response

from app.core.errors import InternalError, RequestError
from app.core.jobs import Failed
from app.http.answers import Shape
from app.http.errors import ClientGoneError, error_body, log_unexpected
from app.http.generation import Batch, Generation
from app.http.strict_json import dump

PING_INTERVAL_S = 10.0
TEXT_TYPES = ("text/plain", "application/octet-stream")
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Writer(Protocol):
    """Turns what happens into bytes; empty where the form has no way to say it."""

    mimetype: str
    ping: bytes

    def piece(self, text: str) -> bytes: ...
    def last(self, generation: Generation) -> bytes: ...
    def error(self, error: RequestError, request_id: str) -> bytes: ...


class EventWriter:
    """``text/event-stream``: one line of JSON per event."""

    mimetype = "text/event-stream"
    ping = b": ping\n\n"

    def __init__(self, shape: Shape):
        self._shape = shape

    def piece(self, text: str) -> bytes:
        return event(dump(self._shape.piece(text))) if text else b""

    def last(self, generation: Generation) -> bytes:
        return event(dump(self._shape.last(generation))) + event("[DONE]")

    def error(self, error: RequestError, request_id: str) -> bytes:
        return event(dump(error_body(error, request_id)))


class TextWriter:
    """The bare text. It cannot tell a failure or how the completion ended."""

    ping = b""

    def __init__(self, mimetype: str):
        self.mimetype = mimetype

    def piece(self, text: str) -> bytes:
        return text.encode()

    def last(self, generation: Generation) -> bytes:
        return b""

    def error(self, error: RequestError, request_id: str) -> bytes:
        return b""


def event(data: str) -> bytes:
    """One server-sent event; JSON has no raw line breaks, so its text survives as one line."""
    return f"data: {data}\n\n".encode()


def choose_writer(request: Request, shape: Shape) -> Writer:
    """Bare text where ``Accept`` names it and does not name events."""
    accepted = {mimetype for mimetype, _ in request.accept_mimetypes}
    for mimetype in TEXT_TYPES:
        if mimetype in accepted and EventWriter.mimetype not in accepted:
            return TextWriter(mimetype)
    return EventWriter(shape)


def stream_response(generation: Generation, shape: Shape, writer: Writer, ping_interval_s: float) -> Response:
    """The streamed answer; its status is decided here, by the first events. Raises their error."""
    first = generation.require_batch()
    chunks = _chunks(generation, first, writer, shape.prefix, ping_interval_s)
    headers = HEADERS | generation.headers()
    headers.pop("X-Total-Ms", None)
    response = Response((chunk for chunk in chunks if chunk), mimetype=writer.mimetype, headers=headers)
    # Not left to the generator's own end: one that never started runs no `finally`.
    response.call_on_close(generation.close)
    return response


def _chunks(
    generation: Generation, first: Batch, writer: Writer, prefix: str, ping_interval_s: float
) -> Iterator[bytes]:
    try:
        yield writer.piece(prefix)
        batch: Batch | None = first
        while batch is None or batch.end is None:
            yield writer.ping if batch is None else writer.piece(batch.text)
            batch = generation.next_batch(ping_interval_s)
        yield writer.piece(batch.text) + _ending(generation, batch, writer)
    except ClientGoneError as error:
        generation.error = error
    except Exception as failure:
        generation.error = _as_error(generation, failure)
        yield writer.error(generation.error, generation.job.request_id)


def _ending(generation: Generation, batch: Batch, writer: Writer) -> bytes:
    if isinstance(batch.end, Failed):
        return writer.error(batch.end.error, generation.job.request_id)
    return writer.last(generation)


def _as_error(generation: Generation, failure: Exception) -> RequestError:
    if isinstance(failure, RequestError):
        return failure
    log_unexpected(failure, generation.job.request_id)
    return InternalError()
