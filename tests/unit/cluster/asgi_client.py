"""A server that speaks ASGI, played by hand: what it sends to an application, and what it gets back."""

from __future__ import annotations

import asyncio
from typing import Any


class Exchange:
    """One request; the client sends what ``feed`` is given, and reads as long as it ``is_reading``."""

    def __init__(self, method: str = "POST", path: str = "/", headers: dict[str, str] | None = None, **scope: Any):
        fields = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "headers": fields,
            "client": ("10.0.0.9", 4711),
            "server": ("replica", 8000),
            **scope,
        }
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self.sent: list[dict[str, Any]] = []
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def feed(self, data: bytes = b"", *, more: bool = False) -> Exchange:
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})
        return self

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.get()

    async def send(self, message: dict[str, Any]) -> None:
        await self.is_reading.wait()
        self.sent.append(dict(message))

    async def run(self, bridge: Any) -> Exchange:
        async with asyncio.timeout(20):
            await bridge(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.sent if "status" in message), None)

    @property
    def headers(self) -> dict[str, str]:
        start = next(message for message in self.sent if "status" in message)
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def has_ended(self) -> bool:
        return any(message.get("more_body") is False for message in self.sent)
