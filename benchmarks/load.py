"""Loads for benchmarks: a list of completions through the load generator of ``forklift bench``.

Every body of a load asks for the same number of tokens and gets it, so streams from servers that do not count for the
caller are measured too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.cli.loadtest.figures import Summary, percentile
from app.cli.loadtest.loops import Load
from app.cli.loadtest.timed_request import Target

__all__ = ["Summary", "closed_loop", "median", "open_loop", "percentile"]

REQUEST_LIMIT_S = 600


def closed_loop(url: str, bodies: list[dict[str, Any]], concurrency: int) -> Summary:
    """``concurrency`` clients, each sending its next request when it has its answer."""
    return _run(url, bodies, lambda load: load.closed(concurrency))


def open_loop(url: str, bodies: list[dict[str, Any]], rate_per_s: float, seed: int = 0) -> Summary:
    """Requests at Poisson times, whether the server keeps up or not."""
    return _run(url, bodies, lambda load: load.open(rate_per_s, seed))


def _run(url: str, bodies: list[dict[str, Any]], loop: Callable[[Load], Summary]) -> Summary:
    summary = loop(Load(Target(url), bodies, timeout_s=REQUEST_LIMIT_S))
    if not bodies[0].get("stream"):
        return summary
    num_new = int(bodies[0]["max_tokens"])
    return replace(summary, results=[replace(one, num_tokens=num_new if one.is_ok else 0) for one in summary.results])


def median(values: list[float]) -> float:
    return statistics.median(values)
