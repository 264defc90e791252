"""Many clients at once from one thread, each with a connection of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer and how long it took.

    ``seconds`` counts from ``sent_s`` (``time.monotonic()``), just before the connection was made.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    sent_s: float
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


def completion(num_tokens: int = 1, request_id: str = "", headers: str = "", **fields: Any) -> bytes:
    """A request to ``/complete`` as bytes; ``headers`` are lines of their own."""
    body = json.dumps({"prompt": "p", "max_new_tokens": num_tokens, **fields}).encode()
    named = f"X-Request-Id: {request_id}\r\n" if request_id else ""
    return post("/complete", body, named + headers)


def post(path: str, body: bytes, headers: str = "", content_type: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def send_all(
    port: int, requests: Sequence[bytes], pauses_s: Sequence[float] = (), on_answer: Callable[[int], None] | None = None
) -> list[Answer]:
    """Answers in the order of ``requests``. ``pauses_s`` go before each; ``on_answer`` is told how many are there.

    Raises ConnectionError where a connection is reset.
    """
    return asyncio.run(_send_all(port, requests, pauses_s, on_answer or (lambda _: None)))


async def _send_all(
    port: int, requests: Sequence[bytes], pauses_s: Sequence[float], on_answer: Callable[[int], None]
) -> list[Answer]:
    num_answers = 0

    async def one(request: bytes) -> Answer:
        nonlocal num_answers
        answer = await send(port, request)
        num_answers += 1
        on_answer(num_answers)
        return answer

    tasks = []
    for index, request in enumerate(requests):
        if pauses_s:
            await asyncio.sleep(pauses_s[index])
        tasks.append(asyncio.create_task(one(request)))
    return await asyncio.gather(*tasks)


async def send(port: int, request: bytes) -> Answer:
    """One request, read to the end of the connection."""
    started_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split()[1]), headers, body, started_s, time.monotonic() - started_s)
