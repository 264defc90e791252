"""``forklift bench``: load on any OpenAI-style server; a table, and on demand JSON and a picture."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.live import Live

from app.cli.loadtest.bodies import PATHS, Kind, Plan, ProbeError, words_for
from app.cli.loadtest.figures import Summary
from app.cli.loadtest.load_plot import draw
from app.cli.loadtest.load_view import LiveView, table
from app.cli.loadtest.loops import Load
from app.cli.loadtest.timed_request import Target
from app.cli.output_files import json_option, plot_option
from app.cli.server_connection import CommandError, Server, key_option, listed, make_server
from app.cli.streams import make_console
from app.core.system.interrupts import interruptible

MOST_CLIENTS = 4096
MOST_REQUESTS = 1_000_000
LONGEST_S = 24 * 3600
DEFAULT_REQUESTS = 64


@dataclass(frozen=True)
class Shape:
    """How much load: requests, seconds, or both; clients, or a rate."""

    clients: int
    rate: float | None
    num_requests: int | None
    duration_s: float | None
    seed: int

    @property
    def text(self) -> str:
        return f"{self.rate:g} requests/s" if self.rate else f"{self.clients} clients"


@click.command("bench")
@click.argument("url")
@key_option
@click.option("--kind", type=click.Choice(list(PATHS)), default="completions", show_default=True, help="Route.")
@click.option("--model", help="Model to ask for. Default: the first that the server lists.")
@click.option("-c", "--clients", type=click.IntRange(1, MOST_CLIENTS), default=8, show_default=True)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests/s at Poisson times, not clients.")
@click.option("-n", "--requests", "num_requests", type=click.IntRange(1, MOST_REQUESTS), help="Default: 64.")
@click.option("--duration", "duration_s", type=click.FloatRange(0, LONGEST_S, min_open=True), help="Seconds to send.")
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, show_default=True, help="About this many.")
@click.option("--new-tokens", type=click.IntRange(1), default=64, show_default=True, help="At most this many.")
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--ignore-eos", is_flag=True, help="Go on after the end token (Forklift, vLLM): same work each time.")
@click.option("--stream/--no-stream", default=True, show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of prompts and of Poisson times.")
@json_option("Figures.")
@plot_option("PNG.")
def command(
    url: str,
    api_key: str | None,
    kind: Kind,
    model: str | None,
    clients: int,
    rate: float | None,
    num_requests: int | None,
    duration_s: float | None,
    prompt_tokens: int,
    new_tokens: int,
    temperature: float,
    ignore_eos: bool,
    stream: bool,
    timeout_s: float,
    seed: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Put load on the OpenAI-style server at URL and measure it.

    Clients send their next request when they have their answer (closed loop); with --rate requests come at random
    times, whether the server keeps up or not (open loop). It ends after --requests or --duration, whichever is
    first; ctrl-C ends it earlier and shows what was measured.

    Exit codes: 0, 1 when no request was answered well, 2 for wrong usage, 130 after ctrl-C.
    """
    server = make_server(url, api_key)
    fields: dict[str, Any] = {"temperature": temperature}
    fields |= {"ignore_eos": True} if ignore_eos else {}
    named = model or first_model(server)
    fields |= {"model": named} if named else {}
    plan = Plan(kind, new_tokens, stream, fields)
    shape = Shape(clients, rate, _bound(num_requests, duration_s), duration_s, seed)
    target = Target(server.url, PATHS[kind], server.api_key)
    summary, is_interrupted = run(target, plan, shape, prompt_tokens, timeout_s)
    title = f"{server.shown_url}{PATHS[kind]}, {shape.text}, {prompt_tokens} + {new_tokens} tokens"
    click.echo(title)
    make_console().print(table(summary))
    if json_file:
        facts = {
            "url": server.shown_url,
            "kind": kind,
            "model": named,
            "stream": stream,
            "clients": clients,
            "rate": rate,
        }
        save(json_file, summary, prompt_tokens=prompt_tokens, new_tokens=new_tokens, seed=seed, **facts)
    if plot_file:
        draw(summary, title, plot_file)
    if is_interrupted:
        raise KeyboardInterrupt
    if not summary.ok:
        raise CommandError("no request was answered well")


def _bound(num_requests: int | None, duration_s: float | None) -> int | None:
    return DEFAULT_REQUESTS if num_requests is None and duration_s is None else num_requests


def first_model(server: Server) -> str | None:
    """What the server lists first; None where it has no such list. Raises ``CommandError`` where it is not there."""
    response = server.get("/v1/models")
    return None if response.status == 404 else next(iter(listed(response)), None)


def run(target: Target, plan: Plan, shape: Shape, prompt_tokens: int, timeout_s: float) -> tuple[Summary, bool]:
    """The load with its live picture, and whether ctrl-C ended it. Raises ``CommandError``: a first request failed."""
    try:
        num_words = words_for(target, plan, prompt_tokens, timeout_s)
    except ProbeError as error:
        raise CommandError(f"a first request to {target.shown_url}{target.path} failed: {error}") from None
    bodies = plan.bodies(num_words, shape.num_requests, shape.seed)
    load = Load(target, bodies, duration_s=shape.duration_s, timeout_s=timeout_s)
    view = LiveView(load, shape.num_requests, shape.duration_s)
    with interruptible(), Live(view, console=make_console(stderr=True), refresh_per_second=4, transient=True):
        try:
            return (load.open(shape.rate, shape.seed) if shape.rate else load.closed(shape.clients)), False
        except KeyboardInterrupt:
            return load.summary(), True


def save(file: Path, summary: Summary, **facts: Any) -> None:
    """Facts, figures, errors, and a row for each request."""
    rows = [
        {
            "status": one.status,
            "started_s": round(one.started_s, 4),
            "ttft_s": None if one.ttft_s is None else round(one.ttft_s, 4),
            "total_s": round(one.total_s, 4),
            "prompt_tokens": one.prompt_tokens,
            "new_tokens": one.num_tokens,
            "error": one.error,
        }
        for one in summary.results
    ]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = {**facts, "at": at, "figures": summary.as_dict(), "errors": summary.errors(), "requests": rows}
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
