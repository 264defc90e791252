"""Starts each contender itself and puts the same load on it: tokens per second, side by side.

Run as ``python -m benchmarks.compare --shape qwen2-6.8m``. In every run each contender is started,
warmed up, measured and stopped; the table shows medians over the runs.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.progress import Progress

from benchmarks.contenders import Contender, forklift, llama_cpp, plain_flask, running, transformers_serve, vllm
from benchmarks.load import Summary, closed_loop, median
from benchmarks.report import show
from benchmarks.shapes import SHAPES, model_folder, prompts

# How answers come: each has prompts of its own.
ANSWERS = WHOLE, STREAMED = ("whole", "streamed")


class Cell(NamedTuple):
    """One cell of the grid: how many ask at once, how often, for how many tokens, and how the answers come."""

    num_clients: int
    num_requests: int
    num_new: int
    answers: tuple[str, ...]


def contenders(folder: Path, batch: int) -> dict[str, Contender]:
    """Every server that comes from this environment, by the name that ``--only`` takes.

    ``compiled`` ones take the package of ``forklift compile``, and wait at their start for one to be made where there
    is none.
    """
    batched = {"max_batch_size": batch, "http_threads": 2 * batch + 8}
    compiled = {"compile": "always", "load_timeout_s": 3600}
    two_workers = {"workers": 2, "max_batch_size": batch // 2, "pack_weights": "always"}
    found = [
        forklift("forklift serial", folder),
        forklift("forklift batched", folder, **batched),
        forklift("forklift batched, 2 workers", folder, **batched | two_workers),
        forklift("forklift int8", folder, quantization="int8"),
        forklift("forklift int8 batched", folder, quantization="int8", **batched),
        forklift("forklift int4", folder, quantization="int4"),
        forklift("forklift int4 batched", folder, quantization="int4", **batched),
        forklift("forklift serial compiled", folder, **compiled),
        forklift("forklift batched compiled", folder, **batched, **compiled),
        forklift("forklift int8 compiled", folder, quantization="int8", **compiled),
        forklift("forklift int8 batched compiled", folder, quantization="int8", **batched, **compiled),
        forklift("forklift int4 compiled", folder, quantization="int4", **compiled),
        transformers_serve("transformers serve", folder),
        transformers_serve("transformers serve CB", folder, "--continuous-batching"),
        plain_flask("plain flask", folder),
    ]
    return {contender.name: contender for contender in found}


def others(folder: Path, llama: Path | None, ggufs: tuple[str, ...], vllm_start: Path | None) -> dict[str, Contender]:
    """Servers that are installed elsewhere; ``ggufs`` are ``name=file``. Raises ``ClickException``."""
    found = [] if vllm_start is None else [vllm("vLLM", vllm_start, folder)]
    for given in ggufs:
        name, _, file = given.partition("=")
        if llama is None or not Path(file).is_file():
            raise click.ClickException(f"--gguf {given}: it needs NAME=FILE and --llama")
        found.append(llama_cpp(f"llama.cpp {name}", llama, Path(file)))
    return {contender.name: contender for contender in found}


def load(contender: Contender, url: str, texts: list[str], cell: Cell, *, stream: bool) -> Summary:
    bodies = [
        {"prompt": text, "max_tokens": cell.num_new, "stream": stream, **contender.extra_fields} for text in texts
    ]
    return closed_loop(url, bodies, cell.num_clients)


def measure(contender: Contender, texts: list[str], cell: Cell) -> dict[str, Summary]:
    """One start of ``contender``, after a warm-up."""
    with running(contender) as url:
        warm_up(contender, url, texts, cell)
        return measure_running(contender, url, texts, cell)


def warm_up(contender: Contender, url: str, texts: list[str], cell: Cell) -> None:
    """Two answers that nobody counts."""
    load(contender, url, texts[-2:], cell._replace(num_clients=2), stream=False)


def measure_running(contender: Contender, url: str, texts: list[str], cell: Cell) -> dict[str, Summary]:
    """Each kind of answers that the cell asks for and the server can give; each is told as it comes."""
    found = {}
    for at, kind in enumerate(ANSWERS):
        if kind in cell.answers and (contender.can_stream or kind != STREAMED):
            some = texts[at * cell.num_requests : (at + 1) * cell.num_requests]
            found[kind] = load(contender, url, some, cell, stream=kind == STREAMED)
            click.echo(f"{contender.name}, {kind}: {found[kind].as_dict()['tokens_per_s']} tokens/s", err=True)
    return found


def in_turns(
    servers: list[Contender], texts_of_runs: list[list[str]], cell: Cell
) -> dict[str, list[dict[str, Summary]]]:
    """All servers at once, each idle while another one is measured."""
    found: dict[str, list[dict[str, Summary]]] = {server.name: [] for server in servers}
    with ExitStack() as stack:
        urls = [stack.enter_context(running(server)) for server in servers]
        for server, url in zip(servers, urls, strict=True):
            warm_up(server, url, texts_of_runs[0], cell)
        for texts in texts_of_runs:
            for server, url in zip(servers, urls, strict=True):
                found[server.name].append(measure_running(server, url, texts, cell))
    return found


@click.command()
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="qwen2-6.8m")
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A folder in the place of a shape.")
@click.option("--llama", type=click.Path(path_type=Path, exists=True), help="Script that starts llama.cpp's server.")
@click.option("--gguf", "ggufs", multiple=True, help="NAME=FILE: adds the contender `llama.cpp NAME`.")
@click.option("--vllm", "vllm_start", type=click.Path(path_type=Path, exists=True), help="Script that starts vLLM.")
@click.option("--concurrency", default=16, help="Clients; also the batch of the batched contenders.")
@click.option("--requests", "num_requests", default=48, help="Requests per contender, run and kind.")
@click.option("--new", "num_new", default=64, help="Tokens per answer.")
@click.option("--prompt", "num_prompt", default=130, help="Tokens per prompt.")
@click.option("--runs", default=3)
@click.option("--together", is_flag=True, help="Start all servers once and let them take turns: for small models.")
@click.option("--only", multiple=True, help="Names of contenders; all without it.")
@click.option("--answers", multiple=True, type=click.Choice(ANSWERS), help="How answers come; both without it.")
def main(
    shape: str,
    model: Path | None,
    llama: Path | None,
    ggufs: tuple[str, ...],
    vllm_start: Path | None,
    concurrency: int,
    num_requests: int,
    num_new: int,
    num_prompt: int,
    runs: int,
    together: bool,
    only: tuple[str, ...],
    answers: tuple[str, ...],
) -> None:
    """Compare servers under a closed loop, each in turn in every run."""
    folder = model or model_folder(shape)
    servers = contenders(folder, max(concurrency, 2)) | others(folder, llama, ggufs, vllm_start)
    if unknown := set(only) - set(servers):
        raise click.ClickException(f"no contender {', '.join(sorted(unknown))}; there are: {', '.join(servers)}")
    names = list(only or servers)
    cell = Cell(concurrency, num_requests, num_new, answers or ANSWERS)
    texts_of_runs = [prompts(num_prompt, 2 * num_requests + 2, seed=run, folder=folder) for run in range(runs)]
    if together:
        found = in_turns([servers[name] for name in names], texts_of_runs, cell)
    else:
        found = {name: [] for name in names}
        with Progress() as progress:
            task = progress.add_task("runs", total=runs * len(names))
            for texts in texts_of_runs:
                for name in names:
                    found[name].append(measure(servers[name], texts, cell))
                    progress.advance(task)
    rows = [row(name, found[name]) for name in names]
    facts = {"shape": folder.name, "clients": concurrency, "num_prompt": num_prompt, "num_new": num_new, "runs": runs}
    show(f"servers, {concurrency} clients, {folder.name}", rows, requests=num_requests, **facts)


def row(name: str, runs: list[dict[str, Summary]]) -> dict[str, Any]:
    """Medians over the runs of one contender."""
    whole, streamed = ([run[kind] for run in runs if kind in run] for kind in ANSWERS)

    def over(summaries: list[Summary], figure: str) -> float | None:
        return median([measured(summary, figure) for summary in summaries]) if summaries else None

    return {
        "server": name,
        "tokens/s": over(whole, "tokens_per_s"),
        "streamed tokens/s": over(streamed, "tokens_per_s"),
        "first token p50 ms": over(streamed, "ttft_p50_ms"),
        "first token p99 ms": over(streamed, "ttft_p99_ms"),
        "whole p50 ms": over(whole, "total_p50_ms"),
        "failed": sum(summary.as_dict()["failed"] for run in runs for summary in run.values()),
    }


def measured(summary: Summary, figure: str) -> float:
    """A figure of a load. Raises ``ClickException`` where nothing came from which it could be taken."""
    if (value := summary.as_dict()[figure]) is None:
        raise click.ClickException(f"no {figure} was measured: {summary.errors()}")
    return value


if __name__ == "__main__":
    main()
