"""Reads the body of a request on the event loop, so that a slow client costs no thread: whole, in time, within bounds.

What the application will refuse anyway is not kept: bodies above the limit, and those of callers without a valid key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.cluster.bridge.asgi_types import DISCONNECT, Receive, Scope
from app.core.errors import RequestError
from app.core.parsing.keys import known_key
from app.core.settings import Settings
from app.serve.incoming.error_answers import body_timeout, out_of_memory
from app.serve.incoming.receiving import MAX_BUFFERED_BYTES, MIN_BUFFERED_BODIES

# More digits than any size that is allowed, and few enough for int().
MAX_LENGTH_DIGITS = 18
# A client that is still sending may not see an answer that comes before its end.
LINGER_S = 2.0


class ClientLeftError(Exception):
    """The connection ended before the request did."""


class RefusedError(Exception):
    """The request gets ``error`` without the application."""

    def __init__(self, error: RequestError):
        super().__init__(error.code)
        self.error = error


@dataclass(frozen=True, slots=True)
class RequestBody:
    """``num_bytes`` is above the length of ``data`` where the body is larger than what may be sent."""

    data: bytes
    num_bytes: int


class BodyReader:
    """Bounds what all requests of this process that come in or are being served take together."""

    def __init__(self, settings: Settings):
        self._timeout_s = settings.body_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._keys = [key.encode() for key in settings.api_keys]
        self._max_bytes = max(MAX_BUFFERED_BYTES, MIN_BUFFERED_BODIES * settings.max_body_bytes)
        self._num_bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> RequestBody:
        """The body, which counts until ``give_back``. Raises ``ClientLeftError`` and ``RefusedError``."""
        declared = _declared_bytes(scope)
        if declared > self._max_body_bytes or not self._has_key(scope):
            if not _header(scope, b"expect"):
                await _discard(receive)
            return RequestBody(b"", declared if declared > self._max_body_bytes else 0)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(receive)
        except TimeoutError:
            raise RefusedError(body_timeout()) from None

    def give_back(self, body: RequestBody) -> None:
        """The body is done with."""
        self._num_bytes -= len(body.data)

    async def _read(self, receive: Receive) -> RequestBody:
        data = bytearray()
        is_whole = False
        try:
            while not is_whole and len(data) <= self._max_body_bytes:
                piece, is_whole = await _next_piece(receive)
                self._keep(data, piece)
            if len(data) > self._max_body_bytes:
                if not is_whole:
                    await _discard(receive)
                return RequestBody(b"", len(data))
            self._num_bytes += len(data)
            return RequestBody(bytes(data), len(data))
        finally:
            self._num_bytes -= len(data)

    def _keep(self, data: bytearray, piece: bytes) -> None:
        if self._num_bytes + len(piece) > self._max_bytes:
            raise RefusedError(out_of_memory())
        self._num_bytes += len(piece)
        data += piece

    def _has_key(self, scope: Scope) -> bool:
        if not self._keys:
            return True
        authorization, api_key = (_header(scope, name) for name in (b"authorization", b"x-api-key"))
        return known_key(authorization, api_key, self._keys) is not None


async def _discard(receive: Receive) -> None:
    """Read what is still to come, for a moment."""
    try:
        async with asyncio.timeout(LINGER_S):
            while not (await _next_piece(receive))[1]:
                pass
    except TimeoutError:
        pass


async def _next_piece(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes, and whether they are the last. Raises ``ClientLeftError``."""
    message = await receive()
    if message["type"] == DISCONNECT:
        raise ClientLeftError("the client left while it sent its request")
    return bytes(message.get("body", b"")), not message.get("more_body", False)


def _header(scope: Scope, name: bytes) -> bytes:
    """The one field of this name; empty where there is none, or more than one."""
    found = [value for other, value in scope["headers"] if other == name]
    return found[0] if len(found) == 1 else b""


def _declared_bytes(scope: Scope) -> int:
    """0 for a chunked body, whose length nobody knows."""
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() and len(length) <= MAX_LENGTH_DIGITS else 0
