"""Long prompts arrive while streams run: how even the streams stay, and how soon a long prompt's first token comes.

Run as ``python -m benchmarks.arrivals --model FOLDER --only NAME``. Each server reads long prompts alone first, then
beside streams; the servers take turns. What counts is the streams' gaps from the first arrival to the last one's first
token.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import click

from app.cli.loadtest.figures import Result, percentile
from app.cli.loadtest.timed_request import Target, send
from benchmarks.compare import contenders, others
from benchmarks.contenders import Contender, running
from benchmarks.load import REQUEST_LIMIT_S, median
from benchmarks.report import show
from benchmarks.shapes import model_folder, prompts

# Tokens of an arrival's answer: its end must not wait for many.
NUM_ARRIVAL_NEW = 2


def gaps_within(results: list[Result], begin_s: float, end_s: float) -> list[float]:
    """Pauses of streams that ended between those times of the load, in order of length."""
    found = []
    for result in results:
        times = accumulate(result.gaps_s, initial=result.started_s + (result.ttft_s or 0.0))
        found += [later - earlier for earlier, later in pairwise(times) if begin_s < later <= end_s]
    return sorted(found)


async def arriving(
    url: str, streams: list[dict[str, Any]], arrivals: list[dict[str, Any]], lead_s: float
) -> tuple[list[Result], list[Result]]:
    """Results of ``streams``, all sent at once, and of ``arrivals``: one after the other from ``lead_s`` on."""
    target, origin_s = Target(url), time.perf_counter()
    tasks = [asyncio.create_task(send(target, body, REQUEST_LIMIT_S, origin_s)) for body in streams]
    await asyncio.sleep(lead_s)
    arrived = [await send(target, body, REQUEST_LIMIT_S, origin_s) for body in arrivals]
    return list(await asyncio.gather(*tasks)), arrived


def row(name: str, alone: list[Result], streams: list[Result], arrived: list[Result]) -> dict[str, Any]:
    """Figures of one server. Raises ``ClickException`` where a request failed."""
    failed = [one.error for one in (*alone, *streams, *arrived) if not one.is_ok]
    if failed:
        raise click.ClickException(f"{name}: {failed[0]}")
    begin_s = arrived[0].started_s
    end_s = max(one.started_s + (one.ttft_s or 0.0) for one in arrived)
    before, during = gaps_within(streams, 0.0, begin_s), gaps_within(streams, begin_s, end_s)
    p50, p99 = percentile(during, 50), percentile(during, 99)
    return {
        "server": name,
        "first token alone ms": 1000 * median([one.ttft_s or 0.0 for one in alone]),
        "first token beside streams ms": 1000 * median([one.ttft_s or 0.0 for one in arrived]),
        "gap before p50 ms": 1000 * percentile(before, 50),
        "gap during p50 ms": 1000 * p50,
        "gap during p99 ms": 1000 * p99,
        "p99 of p50": p99 / p50 if p50 else 0.0,
        "gaps": len(during),
    }


def measure(contender: Contender, texts: list[str], streamed: list[str], num_new: int, lead_s: float) -> dict[str, Any]:
    """One start of ``contender``; half of ``texts`` are read alone, the first of all without being counted."""
    fields = {"stream": True, **contender.extra_fields}
    arrivals = [{"prompt": text, "max_tokens": NUM_ARRIVAL_NEW, **fields} for text in texts]
    streams = [{"prompt": text, "max_tokens": num_new, **fields} for text in streamed]
    half = len(arrivals) // 2
    with running(contender) as url:
        _, read = asyncio.run(arriving(url, [], arrivals[:half], 0.0))
        found, arrived = asyncio.run(arriving(url, streams, arrivals[half:], lead_s))
    return row(contender.name, read[1:], found, arrived)


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A folder; else a random 0.5B.")
@click.option("--llama", type=click.Path(path_type=Path, exists=True), help="Script that starts llama.cpp's server.")
@click.option("--gguf", "ggufs", multiple=True, help="NAME=FILE: adds the contender `llama.cpp NAME`.")
@click.option("--streams", "num_streams", default=16)
@click.option("--arrivals", "num_arrivals", default=3, help="Long prompts, alone and beside the streams.")
@click.option("--prompt", "num_prompt", default=2000, help="Tokens of a long prompt.")
@click.option("--new", "num_new", default=400, help="Tokens of each stream.")
@click.option("--lead", "lead_s", default=6.0, help="Seconds from the streams' start to the first arrival.")
@click.option("--only", multiple=True, required=True, help="Names of contenders, as `benchmarks.compare` has them.")
def main(
    model: Path | None,
    llama: Path | None,
    ggufs: tuple[str, ...],
    num_streams: int,
    num_arrivals: int,
    num_prompt: int,
    num_new: int,
    lead_s: float,
    only: tuple[str, ...],
) -> None:
    """Streams and long prompts on each server in turn."""
    folder = model or model_folder("qwen2-0.5b")
    servers = contenders(folder, num_streams + 1) | others(folder, llama, ggufs, None)
    if unknown := set(only) - set(servers):
        raise click.ClickException(f"no contender {', '.join(sorted(unknown))}; there are: {', '.join(servers)}")
    texts = prompts(num_prompt, 2 * num_arrivals + 1, seed=1, folder=folder)
    streamed = prompts(30, num_streams, seed=2, folder=folder)
    rows = []
    for name in only:
        rows.append(measure(servers[name], texts, streamed, num_new, lead_s))
        # A run that is ended early has figures, too.
        click.echo(json.dumps(rows[-1]))
    facts = {"streams": num_streams, "arrivals": num_arrivals, "num_prompt": num_prompt, "num_new": num_new}
    show(f"prompts of {num_prompt} tokens beside {num_streams} streams, {folder.name}", rows, **facts)


if __name__ == "__main__":
    main()
