"""Load on one OpenAI-style server: closed loop at several concurrencies, or open loop at a rate.

Run as ``python -m benchmarks.serve --url http://127.0.0.1:5000`` against a server that runs, or
without ``--url`` to start Forklift with the demo model. ``--plot FILE`` draws the percentiles.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.progress import track

from benchmarks.contenders import forklift, running
from benchmarks.load import Summary, closed_loop, open_loop
from benchmarks.report import show
from benchmarks.shapes import DEMO, prompts


@click.command()
@click.option("--url", help="A running server; without it Forklift is started.")
@click.option("--model", type=click.Path(path_type=Path), default=DEMO, help="Folder to serve when starting.")
@click.option("--batch", default=16, help="FORKLIFT_MAX_BATCH_SIZE when starting.")
@click.option("--concurrency", multiple=True, type=int, default=(1, 4, 16), help="Closed loop: clients.")
@click.option("--rate", multiple=True, type=float, help="Open loop: requests per second, instead of --concurrency.")
@click.option("--requests", "num_requests", default=32, help="Requests per load.")
@click.option("--new", "num_new", default=64)
@click.option("--prompt", "num_prompt", default=130)
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of the latencies.")
def main(
    url: str | None,
    model: Path,
    batch: int,
    concurrency: tuple[int, ...],
    rate: tuple[float, ...],
    num_requests: int,
    num_new: int,
    num_prompt: int,
    plot: Path | None,
) -> None:
    """Latency and throughput of one server."""
    server = forklift("forklift", model, max_batch_size=batch)
    rows = []
    with nullcontext(url) if url else running(server) as target:
        loads: tuple[float, ...] = rate or concurrency
        for i, load in track(list(enumerate(loads)), description="loads"):
            texts = prompts(num_prompt, num_requests, seed=i)
            fields = {"max_tokens": num_new, "temperature": 0, "ignore_eos": True, "stream": True}
            bodies = [{"prompt": text, **fields} for text in texts]
            summary = open_loop(target, bodies, load) if rate else closed_loop(target, bodies, int(load))
            rows.append(row("requests/s" if rate else "clients", load, summary))
    if plot:
        draw(rows, plot)
    show("one server", rows, open_loop=bool(rate), num_prompt=num_prompt, num_new=num_new, requests=num_requests)


def row(kind: str, load: float, summary: Summary) -> dict[str, Any]:
    figures = summary.as_dict()
    names = ("tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms", "gap_p50_ms", "gap_p99_ms", "total_p50_ms")
    return {kind: load, **{name: figures[name] for name in names}, "ok": figures["ok"], "failed": figures["failed"]}


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """First-token and whole latency over the load."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kind = next(iter(rows[0]))
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name in ("ttft_p50_ms", "ttft_p99_ms", "total_p50_ms"):
        axes.plot([row[kind] for row in rows], [row[name] for row in rows], marker="o", label=name)
    axes.set(xlabel=kind, ylabel="ms", yscale="log", title="latency under load")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
