"""Streamed answers: server-sent events, or bare text for those who ask for it.

HTTP threads. A failure that comes once the first byte is out is an event, and the stream ends without ``[DONE]``; bare
text cannot tell it, so its connection is closed without the last chunk, which every client takes for what it is.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from flask import Request, Response

from app.core.errors import InternalError, RequestError, UnsupportedParameterError
from app.core.logs.printable import json_printable
from app.http.answers.native_shapes import Shape
from app.http.application.error_envelope import error_body, log_unexpected
from app.http.application.request_log import RequestRecord, record
from app.http.reading.strict_json import dump
from app.http.requests.caller import ClientGoneError
from app.http.requests.job_output import Batch, Piece
from app.http.requests.running import RunningRequest
from app.http.requests.stream_opening import Open, StreamSource

# The contract says 10 s, for the head of a stream and for comments; a busy machine needs the rest.
PING_INTERVAL_S = 9.0
TEXT_TYPES = ("text/plain", "application/octet-stream")
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class StreamCutError(BrokenPipeError):
    """Ends the connection without the end of its answer; the server takes it for a broken one and logs nothing."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the stream failed, and its form cannot tell")


class Writer(Protocol):
    """Turns what happens into bytes; empty where the form has no way to say it. ``error`` may raise
    ``StreamCutError``."""

    mimetype: str
    ping: bytes

    def first(self, generation: RunningRequest) -> bytes: ...
    def piece(self, piece: Piece, generation: RunningRequest) -> bytes: ...
    def last(self, generation: RunningRequest) -> bytes: ...
    def error(self, error: RequestError, request_id: str) -> bytes: ...


class EventWriter:
    """``text/event-stream``: one line of JSON per event."""

    mimetype = "text/event-stream"
    ping = b": ping\n\n"

    def __init__(self, shape: Shape):
        self._shape = shape

    def first(self, generation: RunningRequest) -> bytes:
        return events(self._shape.first(generation))

    def piece(self, piece: Piece, generation: RunningRequest) -> bytes:
        return events(self._shape.piece(piece, generation))

    def last(self, generation: RunningRequest) -> bytes:
        return events(self._shape.last(generation)) + event("[DONE]")

    def error(self, error: RequestError, request_id: str) -> bytes:
        return event(dump(error_body(error, request_id)))


class TextWriter:
    """The bare text. It cannot tell a failure or how the completion ended."""

    ping = b""

    def __init__(self, mimetype: str, prefix: str):
        self.mimetype = mimetype
        self._prefix = prefix

    def first(self, generation: RunningRequest) -> bytes:
        return self._prefix.encode()

    def piece(self, piece: Piece, generation: RunningRequest) -> bytes:
        return piece.text.encode()

    def last(self, generation: RunningRequest) -> bytes:
        return b""

    def error(self, error: RequestError, request_id: str) -> bytes:
        raise StreamCutError()


def event(data: str) -> bytes:
    """One server-sent event. Line readers break at more than JSON escapes (U+0085, U+2028): all of that is escaped."""
    return f"data: {data if data.isascii() else json_printable(data)}\n\n".encode()


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


def stream_response(
    open_generation: Open, writer: Writer, ping_interval_s: float, *, may_take_long: bool = False
) -> Response:
    """The streamed answer. Its status is decided by the first events where they come within ``ping_interval_s``;
    raises their error then, or what opening failed with."""
    due_s = time.monotonic() + ping_interval_s
    source = StreamSource(open_generation, may_take_long=may_take_long)
    try:
        first = source.next_batch(due_s - time.monotonic())
        if first is not None and first.error is not None:
            raise first.error
    except BaseException as error:
        source.fail(error)
        raise
    chunks = _Stream(source, writer, ping_interval_s, record()).chunks(first)
    response = Response(chunks, mimetype=writer.mimetype, headers=HEADERS | _timings(source.generation, first))
    # Not left to the generator's own end: one that never started runs no `finally`.
    response.call_on_close(source.close)
    return response


def _timings(generation: RunningRequest | None, first: Batch | None) -> dict[str, str]:
    if generation is None or first is None:
        return {}
    headers = generation.headers()
    headers.pop("X-Total-Ms", None)
    return headers


class _Stream:
    """Turns one source into chunks, and fills every silence."""

    def __init__(self, source: StreamSource, writer: Writer, ping_interval_s: float, line: RequestRecord):
        self._source = source
        self._writer = writer
        self._ping_interval_s = ping_interval_s
        self._line = line
        self._due_s = 0.0

    def chunks(self, first: Batch | None) -> Iterator[bytes]:
        """The bytes of the answer; an empty one sends the head where the form has no comments."""
        try:
            if first is None:
                yield self._wrote(self._writer.ping)
            batch = first or self._wait()
            while batch is None:
                yield self._wrote(self._writer.ping)
                batch = self._wait()
            yield from self._events(batch)
        except (ClientGoneError, StreamCutError) as error:
            self._note(error)
            if isinstance(error, StreamCutError):
                raise
        except Exception as failure:
            yield self._writer.error(self._note(failure), self._line.request_id)

    def _events(self, batch: Batch | None) -> Iterator[bytes]:
        generation = self._generation
        if (start := self._writer.first(generation)) or not self._writer.ping:
            yield self._wrote(start)
        while batch is None or not (batch.is_last or batch.error):
            written = self._writer.ping if batch is None else _pieces(generation, batch, self._writer)
            if written or self._is_due:
                yield self._wrote(written or self._writer.ping)
            batch = self._wait()
        pieces = _pieces(generation, batch, self._writer)
        if batch.error is None:
            yield pieces + self._writer.last(generation)
            return
        yield pieces
        yield self._writer.error(batch.error, generation.request_id)

    @property
    def _generation(self) -> RunningRequest:
        assert self._source.generation is not None, "what brings a batch is open"
        return self._source.generation

    def _wait(self) -> Batch | None:
        return self._source.next_batch(max(0.0, self._due_s - time.monotonic()))

    def _wrote(self, chunk: bytes) -> bytes:
        self._due_s = time.monotonic() + self._ping_interval_s
        return chunk

    @property
    def _is_due(self) -> bool:
        return time.monotonic() >= self._due_s

    def _note(self, failure: BaseException) -> RequestError:
        error = _as_error(failure, self._line.request_id)
        if self._source.generation is None:
            self._line.error = error
        elif self._source.generation.error is None:
            self._source.generation.error = error
        return error


def _pieces(generation: RunningRequest, batch: Batch, writer: Writer) -> bytes:
    return b"".join(writer.piece(piece, generation) for piece in batch.pieces)


def _as_error(failure: BaseException, request_id: str) -> RequestError:
    if isinstance(failure, RequestError):
        return failure
    if not isinstance(failure, StreamCutError):
        log_unexpected(failure, request_id)
    return InternalError()
