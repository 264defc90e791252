"""Answers of conversations whose parts are told apart, whole and as streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .answer_reading import usage_of
from .client_answers import Message, MessagePiece, ToolCall
from .client_errors import ForeignAnswerError
from .connection.exchange import AnswerSource
from .error_reading import make_error
from .event_reading import events_of
from .fields import count_field, list_field, member, require, text_field


def message_of(body: Any) -> Message:
    """A whole answer of ``/v1/chat/completions``."""
    choices = list_field(body, "choices")
    if not choices:
        raise ForeignAnswerError("this is no answer of a Forklift server: it has no choices")
    told = member(choices[0], "message")
    return Message(
        content=_optional(told, "content"),
        reasoning=_optional(told, "reasoning_content"),
        calls=tuple(_call(one) for one in list_field(told, "tool_calls")),
        finish_reason=text_field(choices[0], "finish_reason"),
        usage=usage_of(body),
        model=text_field(body, "model"),
    )


def message_pieces_of(exchange: AnswerSource) -> Iterator[MessagePiece]:
    """The pieces of a stream; leaving the loop early closes the connection, which stops the server's work."""
    growing = _Growing()
    with exchange:
        for event in events_of(exchange):
            if event.get("error") is not None:
                raise make_error(event, hidden=exchange.hidden)
            yield from growing.take(event)


class _Growing:
    """A message as far as it came."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []
        self._finish_reason = ""

    def take(self, event: dict[str, Any]) -> Iterator[MessagePiece]:
        """What an event adds; the one with the usage ends the message."""
        for choice in list_field(event, "choices"):
            yield from self._grow(member(choice, "delta"))
            self._finish_reason = _optional(choice, "finish_reason") or self._finish_reason
        if event.get("usage") is not None:
            yield MessagePiece(calls=self._told(), answer=self._message(event))

    def _grow(self, delta: dict[str, Any]) -> Iterator[MessagePiece]:
        content, reasoning = _optional(delta, "content"), _optional(delta, "reasoning_content")
        if content or reasoning:
            self._texts.append(content)
            self._thoughts.append(reasoning)
            yield MessagePiece(content=content, reasoning=reasoning, calls=self._told())
        for one in list_field(delta, "tool_calls"):
            function = member(one, "function")
            if count_field(one, "index") >= len(self._calls):
                self._calls.append((text_field(one, "id"), text_field(function, "name"), []))
            arguments = _optional(function, "arguments")
            self._calls[-1][2].append(arguments)
            yield MessagePiece(arguments=arguments, calls=self._told())

    def _told(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(call_id, name, "".join(arguments)) for call_id, name, arguments in self._calls)

    def _message(self, event: dict[str, Any]) -> Message:
        return Message(
            content="".join(self._texts),
            reasoning="".join(self._thoughts),
            calls=self._told(),
            finish_reason=self._finish_reason,
            usage=usage_of(event),
            model=text_field(event, "model"),
        )


def _call(found: Any) -> ToolCall:
    function = member(found, "function")
    return ToolCall(text_field(found, "id"), text_field(function, "name"), text_field(function, "arguments"))


def _optional(body: Any, name: str) -> str:
    """Empty where the field is left out or null."""
    found = require(body, dict, "the answer").get(name)
    text: str = "" if found is None else require(found, str, name)
    return text
