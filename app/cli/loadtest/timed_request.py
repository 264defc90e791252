"""One request to an OpenAI-style server, timed: asyncio and bare HTTP/1.1.

A client library would take more of the processor than a small model's server does, and the two often share a machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from app.cli.loadtest.figures import Result
from app.client.connection.server_urls import shown_url

LONGEST_HEAD_BYTES = 64 * 1024
# Of one answer.
MOST_BYTES = 256 * 2**20
MOST_EVENT_BYTES = 16 * 2**20


class WireError(Exception):
    """What came back is not an answer that can be measured."""


@dataclass(frozen=True)
class Target:
    """A route of a server. ``path`` is behind the URL's own path."""

    url: str
    path: str = "/v1/completions"
    api_key: str | None = field(default=None, repr=False)

    @property
    def shown_url(self) -> str:
        """Without a user and password."""
        return shown_url(self.url)

    def head(self, num_bytes: int) -> bytes:
        """Request line and headers of a body of this length."""
        parts = urlsplit(self.url)
        lines = [
            f"POST {parts.path.rstrip('/')}{self.path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "Content-Type: application/json",
            f"Content-Length: {num_bytes}",
            "Connection: close",
        ]
        if self.api_key is not None:
            lines.append(f"Authorization: Bearer {self.api_key.strip()}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection: a kept one would pin a client to one worker."""
        parts = urlsplit(self.url)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if context else 80)
        return await asyncio.open_connection(parts.hostname, port, ssl=context, limit=LONGEST_HEAD_BYTES)


async def send(target: Target, body: dict[str, Any], timeout_s: float = 600.0, origin_s: float | None = None) -> Result:
    """Post ``body``; never raises for what a server or the network does wrong.

    ``origin_s`` is the load's beginning on ``time.perf_counter``.
    """
    started = time.perf_counter()
    try:
        # Not `wait_for`, which in Python 3.11 forgets a cancellation that comes together with the answer.
        async with asyncio.timeout(timeout_s):
            result = await _exchange(target, body, started)
    except TimeoutError:
        result = Result(0, time.perf_counter() - started, error="no answer in time")
    except (OSError, EOFError, WireError, ValueError, RecursionError, asyncio.LimitOverrunError) as error:
        result = Result(0, time.perf_counter() - started, error=_line(error))
    return replace(result, started_s=0.0 if origin_s is None else started - origin_s)


async def _exchange(target: Target, body: dict[str, Any], started: float) -> Result:
    reader, writer = await target.connect()
    try:
        data = json.dumps(body).encode()
        writer.write(target.head(len(data)) + data)
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = _parse_head(head)
        payload = _payload(reader, headers)
        if status == 200 and body.get("stream"):
            return await _read_stream(payload, started)
        return _whole(status, await _all(payload), started)
    finally:
        writer.close()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdecimal():
        raise WireError("the answer is not HTTP/1.1")
    fields = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in fields}


async def _payload(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body as it comes."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if not 0 < size <= MOST_BYTES:
                raise WireError("a chunk of the answer has no possible size")
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        return
    left = int(headers.get("content-length", 2**62))
    while left and (piece := await reader.read(min(left, 65536))):
        left -= len(piece)
        yield piece


async def _all(payload: AsyncIterator[bytes]) -> bytes:
    pieces, num_bytes = [], 0
    async for piece in payload:
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > MOST_BYTES:
            raise WireError(f"the answer is longer than {MOST_BYTES} bytes")
    return b"".join(pieces)


def _whole(status: int, data: bytes, started: float) -> Result:
    total_s = time.perf_counter() - started
    if status != 200:
        return Result(status, total_s, error=_told(data))
    usage = _object(_json(data).get("usage"))
    return Result(
        status, total_s, _count(usage, "completion_tokens") or 0, prompt_tokens=_count(usage, "prompt_tokens")
    )


@dataclass
class _Stream:
    """What the events of one stream have said."""

    times: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    is_done: bool = False
    error: str | None = None

    def take(self, event: dict[str, Any]) -> None:
        self.usage = _object(event.get("usage")) or self.usage
        # `transformers serve` (5.23) sends no [DONE]: its last piece names a finish_reason.
        self.is_done = self.is_done or any(one.get("finish_reason") for one in _choices(event))
        if "error" in event:
            self.error = _message(event)
        elif _has_text(event):
            self.times.append(time.perf_counter())

    def result(self, started: float) -> Result:
        """Tokens by the server's own count, or one per piece with text where it gives none."""
        return Result(
            200,
            time.perf_counter() - started,
            _count(self.usage, "completion_tokens") or len(self.times),
            ttft_s=self.times[0] - started if self.times else None,
            gaps_s=tuple(b - a for a, b in pairwise(self.times)),
            prompt_tokens=_count(self.usage, "prompt_tokens"),
            error=self.error or (None if self.is_done else "the stream ended early"),
        )


async def _read_stream(payload: AsyncIterator[bytes], started: float) -> Result:
    stream = _Stream()
    async for event in _events(payload):
        if event == b"[DONE]":
            stream.is_done = True
            break
        stream.take(_json(event))
    return stream.result(started)


async def _events(payload: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event; a piece may end anywhere."""
    rest = b""
    async for piece in payload:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MOST_EVENT_BYTES:
            raise WireError(f"an event is longer than {MOST_EVENT_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def _has_text(event: dict[str, Any]) -> bool:
    for choice in _choices(event):
        delta = _object(choice.get("delta"))
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            return True
    return False


def _choices(event: dict[str, Any]) -> list[dict[str, Any]]:
    found = event.get("choices")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _object(value: Any) -> dict[str, Any]:
    """Empty for anything else, as where a server does not say."""
    return value if isinstance(value, dict) else {}


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise WireError("the answer is not a JSON object")
    return found


def _told(data: bytes) -> str:
    try:
        return _message(_json(data))
    except (ValueError, WireError):
        return (data.decode(errors="replace").strip().splitlines() or ["no text"])[0][:120]


def _message(found: dict[str, Any]) -> str:
    """The stable code where there is one: messages with figures in them would not add up."""
    error = found.get("error") or found.get("detail") or found.get("message")
    if isinstance(error, dict):
        error = error.get("code") or error.get("message")
    return str(error)[:120]


def _line(error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection was closed early"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
