"""Streams while the server compiles in the background: how much longer the gaps between their tokens become.

Run as ``python -m benchmarks.compiling --model FOLDER``; needs g++. The processes that compile are held still and go
on in turns, so that gaps with and without them are measured side by side, then the step changes under the same load.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psutil

from app.cli.loadtest.figures import Result, percentile
from app.cli.loadtest.timed_request import Target, send
from app.models.compiled.compile_child import CHILD
from benchmarks.arrivals import gaps_within
from benchmarks.contenders import forklift, running
from benchmarks.load import REQUEST_LIMIT_S
from benchmarks.report import show
from benchmarks.shapes import model_folder, prompts

# Of each stretch of time, until what was begun before it is through.
SKIPPED_S = 1.0
AFTER_S = 20.0
LOOK_S = 0.2


class Stretches:
    """Stretches of time of a load by their kind, in seconds since its beginning."""

    def __init__(self) -> None:
        self.origin_s = time.perf_counter()
        self.found: dict[str, list[tuple[float, float]]] = {}

    def note(self, kind: str, begin_s: float) -> None:
        """One of ``kind`` from then until now."""
        self.found.setdefault(kind, []).append((begin_s, self.now_s))

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self.origin_s


def compiling() -> psutil.Process | None:
    """The first of the processes that compile for a server on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        if CHILD in (process.info["cmdline"] or ()):
            return process
    return None


def is_compiled(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:
        return bool(json.load(response)["engines"][0]["compiled"])


async def watch(url: str, stretches: Stretches, stretch_s: float, limit_s: float) -> None:
    """Hold what compiles still and let it go on in turns until it has ended and its step serves for a while."""
    end_s = stretches.now_s + limit_s
    while (child := compiling()) is None:
        await asyncio.sleep(LOOK_S)
    goes_on = not stretch_s
    try:
        while is_alive(child) and stretches.now_s < end_s:
            if stretch_s:
                os.killpg(child.pid, signal.SIGCONT if goes_on else signal.SIGSTOP)
            begin_s = stretches.now_s
            await asyncio.sleep(stretch_s or LOOK_S)
            stretches.note("compiling" if goes_on else "held still", begin_s)
            goes_on = not goes_on or not stretch_s
    except ProcessLookupError:
        pass
    finally:
        if is_alive(child):
            os.killpg(child.pid, signal.SIGCONT)
    begin_s = stretches.now_s
    while not await asyncio.to_thread(is_compiled, url):
        if stretches.now_s > end_s:
            return
        await asyncio.sleep(LOOK_S)
    stretches.note("changing over", begin_s)
    begin_s = stretches.now_s
    await asyncio.sleep(AFTER_S)
    stretches.note("compiled", begin_s)


def is_alive(process: psutil.Process) -> bool:
    """Whether it is there and no zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def streaming(url: str, bodies: Iterator[dict[str, Any]], results: list[Result], origin_s: float) -> None:
    """One client after the other's answer; ended from outside."""
    for body in bodies:
        result = await send(Target(url), body, REQUEST_LIMIT_S, origin_s)
        results.append(result)


async def load(
    url: str, texts: list[str], num_streams: int, num_new: int, stretch_s: float, limit_s: float
) -> tuple[list[Result], Stretches]:
    """Results of all streams that ended while the server compiled, changed over and served compiled."""
    stretches, results = Stretches(), list[Result]()
    is_over = asyncio.Event()

    def bodies(which: int) -> Iterator[dict[str, Any]]:
        at = which
        while not is_over.is_set():
            yield {"prompt": texts[at % len(texts)], "max_tokens": num_new, "stream": True} | {
                "temperature": 0,
                "ignore_eos": True,
            }
            at += num_streams

    tasks = [
        asyncio.create_task(streaming(url, bodies(which), results, stretches.origin_s)) for which in range(num_streams)
    ]
    await watch(url, stretches, stretch_s, limit_s)
    is_over.set()
    await asyncio.gather(*tasks)
    return results, stretches


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A folder; else a random 6.8M.")
@click.option("--streams", "num_streams", default=16)
@click.option("--new", "num_new", default=100, help="Tokens of each stream.")
@click.option(
    "--stretch", "stretch_s", default=10.0, help="Seconds that it is held still, then goes on; 0: never held."
)
@click.option("--limit", "limit_s", default=900.0, help="Seconds after which a package is not waited for.")
def main(model: Path | None, num_streams: int, num_new: int, stretch_s: float, limit_s: float) -> None:
    """Gaps between tokens with and without a compiler beside them."""
    folder = model or model_folder("qwen2-6.8m")
    texts = prompts(30, 4 * num_streams, seed=3, folder=folder)
    with tempfile.TemporaryDirectory() as cache:
        server = forklift("compiling", folder, compile="auto", cache_dir=cache, max_batch_size=num_streams)
        with running(server) as url:
            results, stretches = asyncio.run(load(url, texts, num_streams, num_new, stretch_s, limit_s))
    failed = [one.error for one in results if not one.is_ok]
    rows: list[dict[str, Any]] = []
    medians: dict[str, float] = {}
    skipped_s = SKIPPED_S if stretch_s else 0.0
    for kind, found in stretches.found.items():
        gaps = sorted(gap for begin, end in found for gap in gaps_within(results, min(begin + skipped_s, end), end))
        p50, p99 = (percentile(gaps, 50), percentile(gaps, 99)) if gaps else (0.0, 0.0)
        medians[kind] = p50
        seconds = sum(end - begin for begin, end in found)
        row = {"while": kind, "seconds": seconds, "gaps": len(gaps), "p50 ms": 1000 * p50, "p99 ms": 1000 * p99}
        rows.append(row)
    show(f"{num_streams} streams while {folder.name} is compiled", rows, requests=len(results), failed=len(failed))
    if medians.get("compiling") and medians.get("held still"):
        click.echo(f"median gap beside the compiler: {medians['compiling'] / medians['held still']:.2f} times")
    if "compiled" not in medians:
        click.echo(f"no compiled step after {limit_s:.0f} s")
    if failed:
        raise click.ClickException(f"{len(failed)} failed: {failed[0]}")


if __name__ == "__main__":
    main()
