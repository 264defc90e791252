"""Streams of events, read into pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .answer_reading import completion_of, tokens_of
from .client_answers import Piece
from .client_errors import ForeignAnswerError, StreamEndedError
from .connection.exchange import AnswerSource
from .error_reading import make_error
from .fields import count_field, parsed, shortened, text_field

LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


def pieces_of(exchange: AnswerSource, key: str) -> Iterator[Piece]:
    """The pieces of a stream; leaving the loop early closes the connection, which stops the server's work."""
    texts: list[str] = []
    with exchange:
        for event in events_of(exchange):
            if event.get("error") is not None:
                raise make_error(event, hidden=exchange.hidden)
            is_last = "usage" in event
            index = count_field(event, "index") if "index" in event else 0
            piece = text_field(event, key)
            if index == 0:
                texts.append(piece)
            text = "".join(texts) if is_last else ""
            more = {"infills": [text]} if key == "infill" else {}
            answer = completion_of({**event, **more, key: text}, key) if is_last else None
            yield Piece(piece, index, tokens_of(event), answer)


def plain_events_of(exchange: AnswerSource) -> Iterator[dict[str, Any]]:
    """Events as they are; a stream may end with or without a mark of its end."""
    with exchange:
        for data in _event_data(exchange.pieces()):
            if data == b"[DONE]":
                return
            event = _object(data)
            if event.get("error") is not None:
                raise make_error(event, hidden=exchange.hidden)
            yield event


def events_of(exchange: AnswerSource) -> Iterator[dict[str, Any]]:
    has_events = False
    for data in _event_data(exchange.pieces()):
        has_events = True
        if data == b"[DONE]":
            return
        yield _object(data)
    if not has_events:
        exchange.require_events()
    raise StreamEndedError("the stream ended early")


def _object(data: bytes) -> dict[str, Any]:
    event = parsed(data, "an event of the stream")
    if not isinstance(event, dict):
        raise ForeignAnswerError(f"an event of the stream is no JSON object: {shortened(repr(event))}")
    return event


def _event_data(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The data of each event (WHATWG's HTML, 9.2.6); of the last one also where no blank line ends it."""
    data: list[bytes] = []
    for line in _lines(pieces):
        if not line and data:
            yield b"\n".join(data)
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        if data == [b"[DONE]"]:
            break
    if data:
        yield b"\n".join(data)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines that end as the format allows. A piece may end anywhere; each byte is joined once."""
    held: list[bytes] = []
    for piece in pieces:
        if held and held[-1].endswith(b"\r"):
            piece = held.pop() + piece
        first, *others = LINE_END.split(piece)
        held.append(first)
        for line in others:
            yield b"".join(held)
            held = [line]
    yield b"".join(held).removesuffix(b"\r")
