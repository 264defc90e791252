"""The forms of ASGI 3 that the bridge uses (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

DISCONNECT = "http.disconnect"


def response_start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    """The head of an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def response_body(data: bytes, *, is_last: bool = False) -> Message:
    """A piece of its body."""
    return {"type": "http.response.body", "body": data, "more_body": not is_last}
