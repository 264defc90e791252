"""Models with windows, experts and states, 16 clients over HTTP: batched, one by one, and transformers' own batching.

Run as ``python -m benchmarks.kinds --kind qwen3.5-10m``. All servers run at once and take turns; the table has medians
over the runs. Then a prompt is sent cold, and again with some tokens more: what the first token takes.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import click

from benchmarks.compare import measured
from benchmarks.contenders import Contender, forklift, running, transformers_serve
from benchmarks.layer_kinds_shapes import KINDS, kind_folder
from benchmarks.load import Summary, closed_loop, median
from benchmarks.report import show
from benchmarks.shapes import FOLDER, ROOT, prompts

ONE_BY_ONE = ROOT / "benchmarks" / "one_by_one.py"
OURS, SERIAL, OTHERS = "forklift", "forklift through generate", "transformers serve CB"


def contenders(kind: str, clients: int) -> list[Contender]:
    folder = kind_folder(kind)
    # Who answers one by one may take longer than a queue usually lasts.
    sizes = {"max_batch_size": clients, "http_threads": 2 * clients + 8, "queue_timeout_s": 600}
    # What there is code for is compiled before it serves; `generate` has none to run.
    batched = forklift(OURS, folder, **sizes, compile="always", cache_dir=FOLDER / "kinds-cache")
    command = (sys.executable, "-m", "gunicorn", "-c", str(ONE_BY_ONE), "wsgi:app")
    serial = replace(forklift(SERIAL, folder, **sizes), command=command)
    return [batched, serial, transformers_serve(OTHERS, folder, "--continuous-batching")]


def load(contender: Contender, url: str, texts: list[Any], num_new: int, clients: int, *, stream: bool) -> Summary:
    bodies = [{"prompt": text, "max_tokens": num_new, "stream": stream, **contender.extra_fields} for text in texts]
    return closed_loop(url, bodies, clients)


def in_turns(
    servers: list[Contender], texts_of_runs: list[list[str]], num_new: int, clients: int
) -> list[dict[str, Any]]:
    """A row for each server: the median of its tokens per second, or why there are none."""
    speeds: dict[str, list[float]] = {server.name: [] for server in servers}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        urls: dict[str, str] = {}
        for server in servers:
            try:
                urls[server.name] = stack.enter_context(running(server))
                load(server, urls[server.name], texts_of_runs[0][:2], num_new, 2, stream=False)
            except RuntimeError as error:
                failed[server.name] = str(error).strip().splitlines()[-1][:100]
        for texts in texts_of_runs:
            for server in [server for server in servers if server.name in urls]:
                summary = load(server, urls[server.name], texts, num_new, clients, stream=False)
                figures = summary.as_dict()
                if figures["failed"] or figures["tokens_per_s"] is None:
                    failed[server.name] = f"{figures['failed']} failed: {summary.errors()}"[:100]
                else:
                    speeds[server.name].append(figures["tokens_per_s"])
    return [
        {"server": name, "tokens/s": median(some) if some else 0.0, "failed": failed.get(name, "")}
        for name, some in speeds.items()
    ]


def first_tokens(server: Contender, num_prompt: int, num_more: int, rounds: int) -> dict[str, float]:
    """Milliseconds until the first token: of a prompt that is new, and of it with ``num_more`` tokens behind it."""
    texts = prompts(num_prompt + num_more, rounds + 1, seed=99)
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    with running(server) as url:
        ids = [ids_of(text) for text in texts]
        for at, tokens in enumerate(ids):
            for name, prompt in (("cold", tokens[:num_prompt]), ("warm", tokens[: num_prompt + num_more])):
                summary = load(server, url, [prompt], 2, 1, stream=True)
                if at:
                    found[name].append(measured(summary, "ttft_p50_ms"))
    return {name: median(some) for name, some in found.items()}


def ids_of(text: str) -> list[int]:
    from transformers import AutoTokenizer

    from benchmarks.shapes import DEMO

    ids: list[int] = AutoTokenizer.from_pretrained(DEMO)(text)["input_ids"]
    return ids


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(sorted(KINDS)), help="All of them without it.")
@click.option("--clients", default=16)
@click.option("--requests", "num_requests", default=32, help="Requests per server and run.")
@click.option("--new", "num_new", default=32, help="Tokens per answer.")
@click.option("--prompt", "num_prompt", default=130, help="Tokens per prompt.")
@click.option("--runs", default=3)
@click.option("--long", "num_long", default=1000, help="Tokens of the prompt that comes again.")
@click.option("--more", "num_more", default=20, help="Tokens behind it then.")
def main(
    kinds: tuple[str, ...],
    clients: int,
    num_requests: int,
    num_new: int,
    num_prompt: int,
    runs: int,
    num_long: int,
    num_more: int,
) -> None:
    """Compare servers on models of today's kinds."""
    texts_of_runs = [prompts(num_prompt, num_requests, seed=run) for run in range(runs)]
    for kind in kinds or sorted(KINDS):
        servers = contenders(kind, clients)
        rows = in_turns(servers, texts_of_runs, num_new, clients)
        for row in rows:
            row["ours is"] = f"{rows[0]['tokens/s'] / row['tokens/s']:.1f} times" if row["tokens/s"] else ""
        times = first_tokens(servers[0], num_long, num_more, rounds=5)
        cold, warm = times["cold"], times["warm"]
        facts = {"clients": clients, "num_prompt": num_prompt, "num_new": num_new, "requests": num_requests}
        show(f"{kind}: {clients} clients", rows, runs=runs, **facts)
        told = f"{cold:.0f} ms; with {num_more} more behind them {warm:.0f} ms, {100 * warm / cold:.0f}%"
        click.echo(f"first token of {num_long} tokens: {told}")


if __name__ == "__main__":
    main()
