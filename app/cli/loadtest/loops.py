"""Closed loop (clients that wait for their answer) and open loop (requests at Poisson times), bounded in time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from app.cli.loadtest.figures import Result, Summary
from app.cli.loadtest.timed_request import Target, send

Body = dict[str, Any]


class Load:
    """One load. ``results`` grows while it runs, so that an interrupted one still has figures.

    ``duration_s`` is the time after which no request is sent any more; those under way end within ``timeout_s``.
    """

    def __init__(
        self,
        target: Target,
        bodies: Iterable[Body],
        *,
        duration_s: float | None = None,
        timeout_s: float = 600.0,
    ):
        self.results: list[Result] = []
        self.num_running = 0
        self._target, self._bodies = target, iter(bodies)
        self._duration_s, self._timeout_s = duration_s, timeout_s
        self._started_s = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started_s

    def summary(self) -> Summary:
        """Figures of what has ended so far."""
        return Summary(max(self.elapsed_s, 1e-9), list(self.results))

    def closed(self, num_clients: int) -> Summary:
        """``num_clients`` clients, each sending its next request when it has its answer."""

        async def run() -> None:
            await asyncio.gather(*(self._client() for _ in range(num_clients)))

        return self._run(run)

    def open(self, rate_per_s: float, seed: int = 0) -> Summary:
        """Requests at Poisson times, whether the server keeps up or not."""
        rng = random.Random(seed)

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for body in self._next_bodies():
                    group.create_task(self._send(body))
                    await asyncio.sleep(rng.expovariate(rate_per_s))

        return self._run(run)

    def _run(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> Summary:
        self._started_s = time.perf_counter()
        asyncio.run(loop())
        return self.summary()

    async def _client(self) -> None:
        for body in self._next_bodies():
            await self._send(body)

    def _next_bodies(self) -> Iterator[Body]:
        while self._duration_s is None or self.elapsed_s < self._duration_s:
            body = next(self._bodies, None)
            if body is None:
                return
            yield body

    async def _send(self, body: Body) -> None:
        self.num_running += 1
        try:
            result = await send(self._target, body, self._timeout_s, self._started_s)
        finally:
            self.num_running -= 1
        self.results.append(result)
