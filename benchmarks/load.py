"""Sends completions to an OpenAI-style server and measures them: closed loop or open loop.

One asyncio loop and bare HTTP/1.1, so that the client takes little of the two cores it shares
with the server. Bounded in count and time.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

REQUEST_LIMIT_S = 600


@dataclass(frozen=True)
class Result:
    """One request: status, seconds to its first token and to its end, tokens that it gave."""

    status: int
    ttft_s: float
    total_s: float
    num_tokens: int
    gaps_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """All requests of one run."""

    duration_s: float
    results: list[Result]

    @property
    def ok(self) -> list[Result]:
        return [result for result in self.results if result.status == 200]

    @property
    def tokens_per_s(self) -> float:
        return sum(result.num_tokens for result in self.ok) / self.duration_s

    def as_dict(self) -> dict[str, float]:
        ok = self.ok
        ttft, total = sorted(r.ttft_s for r in ok), sorted(r.total_s for r in ok)
        gaps = sorted(gap for r in ok for gap in r.gaps_s)
        figures = {"tokens_per_s": self.tokens_per_s, "ok": len(ok), "failed": len(self.results) - len(ok)}
        for name, values in (("ttft", ttft), ("total", total), ("gap", gaps)):
            for share in (50, 95, 99):
                figures[f"{name}_p{share}_ms"] = percentile(values, share) * 1000
        return {name: round(value, 2) for name, value in figures.items()}


def percentile(ordered: list[float], share: int) -> float:
    """The value below which ``share`` percent lie; 0 for no values."""
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)] if ordered else 0.0


def closed_loop(url: str, bodies: list[dict[str, Any]], concurrency: int) -> Summary:
    """``concurrency`` clients, each sending its next request when it has its answer."""

    async def run() -> list[Result]:
        queue = list(reversed(bodies))
        results: list[Result] = []

        async def client() -> None:
            while queue:
                results.append(await send(url, queue.pop()))

        await asyncio.gather(*(client() for _ in range(concurrency)))
        return results

    return _timed(run)


def open_loop(url: str, bodies: list[dict[str, Any]], rate_per_s: float, seed: int = 0) -> Summary:
    """Requests at Poisson times, whether the server keeps up or not."""
    rng = random.Random(seed)

    async def run() -> list[Result]:
        tasks = []
        for body in bodies:
            tasks.append(asyncio.create_task(send(url, body)))
            await asyncio.sleep(rng.expovariate(rate_per_s))
        return list(await asyncio.gather(*tasks))

    return _timed(run)


def _timed(run: Any) -> Summary:
    started = time.perf_counter()
    results = asyncio.run(asyncio.wait_for(run(), REQUEST_LIMIT_S))
    return Summary(time.perf_counter() - started, results)


async def send(url: str, body: dict[str, Any]) -> Result:
    """One ``POST /v1/completions``; streamed where the body asks for it."""
    parts = urlsplit(url)
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        status = int((await reader.readuntil(b"\r\n")).split()[1])
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        if body.get("stream") and status == 200:
            return await _read_stream(reader, status, started, body)
        answer = json.loads(_unchunked(await reader.read(), headers))
        total = time.perf_counter() - started
        tokens = answer["usage"]["completion_tokens"] if status == 200 else 0
        return Result(status, total, total, tokens)
    finally:
        writer.close()


async def _read_stream(reader: asyncio.StreamReader, status: int, started: float, body: dict[str, Any]) -> Result:
    times = [time.perf_counter() async for line in reader if line.startswith(b"data:") and b'"text"' in line]
    total = time.perf_counter() - started
    if not times:
        return Result(500, total, total, 0)
    gaps = tuple(b - a for a, b in pairwise(times))
    return Result(status, times[0] - started, total, int(body["max_tokens"]), gaps)


def _unchunked(data: bytes, headers: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in headers:
        return data
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            break
    return body


def median(values: list[float]) -> float:
    return statistics.median(values)
