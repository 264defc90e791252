"""The picture of ``forklift top``, from a history of snapshots."""

from __future__ import annotations

import time
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.cli.checking.findings import gib
from app.cli.streams import cell
from app.cli.watching.history import History
from app.cli.watching.snapshot import Snapshot
from app.core.logs.printable import printable

MODEL_STYLES = {"loaded": "green", "loading": "yellow", "failed": "bold red"}
STYLES = {"ready": "green", "loading": "yellow", "draining": "yellow", "failed": "bold red"}
BARS = "▁▂▃▄▅▆▇█"
LATENCIES = {
    "first token": "time_to_first_token_seconds",
    "between tokens": "inter_token_latency_seconds",
    "in the queue": "request_queue_time_seconds",
    "whole request": "e2e_request_latency_seconds",
}
CURVE_LENGTH = 48
NOTHING = "-"
MOST_ROUTES = 6


def frame(url: str, history: History) -> RenderableType:
    """One picture, whatever is known."""
    last = history.last
    parts: list[RenderableType] = [heading(url, history)]
    if last is not None:
        parts.append(slot_table(last))
        if any(model["task"] or model["state"] for model in last.models):
            parts.append(model_table(last.models))
        parts.append(cell(f"metrics are refused, {last.refused}", "red") if last.refused else numbers(last, history))
    return Group(*parts)


def heading(url: str, history: History) -> Text:
    """Where, what state, since when nothing came."""
    line = Text.assemble((" forklift ", "bold reverse"), f" {url}  {time.strftime('%H:%M:%S')}  ")
    if history.failure is not None:
        return line.append(printable(f"no answer: {history.failure}"), "bold red")
    assert history.last is not None
    state = history.last.state
    line.append(printable(state), STYLES.get(state, ""))
    if state == "loading":
        line.append(f" {history.last.progress:.0%}")
    if history.last.is_unregistered:
        line.append("  the registry does not answer", "red")
    if len(history.instances) == 1:
        line.append(printable(f"  replica {next(iter(history.instances))}"))
    elif history.instances:
        line.append(f"  {len(history.instances)} replicas answer in turn: name one's own port (from 9500 on)", "red")
    return line


def slot_table(last: Snapshot) -> Table:
    """A row for each worker slot."""
    table = Table(box=SIMPLE_HEAD, expand=True, padding=0)
    for name in ("slot", "pid", "GPUs", "state", "running", "waiting", "memory", "KV max", "restarts"):
        table.add_column(
            name,
            justify="left" if name in ("GPUs", "state") else "right",
            min_width=4,
            overflow="fold" if name == "GPUs" else "ellipsis",
        )
    for row in last.slots:
        table.add_row(*_cells(last, row))
    return table


def _cells(last: Snapshot, row: dict[str, Any]) -> list[RenderableType]:
    slot, state = int(row["slot"]), str(row["state"])
    text = cell(state, STYLES.get(state, ""))
    progress = last.of_slot("load_progress_ratio", slot)
    if state == "loading" and progress is not None:
        text.append(f" {progress:.0%}")
    gauges = (last.of_slot(name, slot) for name in ("process_resident_memory_bytes", "kv_cache_max_bytes"))
    restarts = last.of_slot("worker_restarts_total", slot)
    return [
        str(slot),
        cell(row.get("pid") or NOTHING),
        cell(",".join(row.get("gpus") or ()) or "CPU"),
        text,
        str(row["num_running"]),
        str(row["num_waiting"]),
        *(NOTHING if value is None else gib(value) for value in gauges),
        NOTHING if restarts is None else f"{restarts:.0f}",
    ]


def model_table(models: list[dict[str, Any]]) -> Table:
    """A row for each model of a worker: what it is for, how it is run."""
    table = Table(box=SIMPLE_HEAD, expand=True, padding=0)
    for name in ("model", "task", "state", "runs by", "left out"):
        table.add_column(name, min_width=4, overflow="fold" if name == "model" else "ellipsis")
    for model in models:
        step = "compiled" if model["compiled"] else "being compiled" if model["compiling"] else ""
        runs = ", ".join(filter(None, (model["engine"], step)))
        state = cell(model["state"] or NOTHING, MODEL_STYLES.get(model["state"], ""))
        names = (model["model"], model["task"] or NOTHING)
        table.add_row(*map(cell, names), state, cell(runs or NOTHING), cell(", ".join(model["dropped"]) or NOTHING))
    return table


def numbers(last: Snapshot, history: History) -> RenderableType:
    """Rates on the left, latencies on the right, a curve, errors and GPUs below."""
    both = Table.grid(expand=True, padding=(0, 2))
    both.add_row(Panel(rates(last, history), title="now"), Panel(latencies(history), title="last minute"))
    parts: list[RenderableType] = [both, curve(history)]
    if answered := routes(history):
        parts.append(cell(f"requests/s: {answered}"))
    if errors := last.by("request_errors_total", "reason"):
        told = ", ".join(f"{reason} {count:.0f}" for reason, count in sorted(errors.items()))
        parts.append(cell(f"errors since the start: {told}", "red"))
    used, total = last.by("gpu_memory_used_bytes", "gpu"), last.by("gpu_memory_total_bytes", "gpu")
    parts += [cell(f"GPU {gpu}: {gib(used[gpu])} of {gib(total.get(gpu, 0))} in use") for gpu in sorted(used)]
    return Group(*parts)


def rates(last: Snapshot, history: History) -> Table:
    """Work in hand and work done per second."""
    table = Table.grid(padding=(0, 2))
    running, waiting = (sum(int(row[name]) for row in last.slots) for name in ("num_running", "num_waiting"))
    table.add_row("running / waiting", f"{running} / {waiting}")
    names = {"tokens/s": "generation_tokens_total", "prompt tokens/s": "prompt_tokens_total"}
    for label, name in {**names, "requests/s": "requests_total", "errors/s": "request_errors_total"}.items():
        rate = history.rate(name)
        table.add_row(label, NOTHING if rate is None else f"{rate:,.1f}")
    return table


def routes(history: History) -> str:
    """Requests per second of each route that had some within the last moments, the busiest first."""
    found = sorted(history.rates_by("requests_total", "route").items(), key=lambda item: -item[1])
    return ", ".join(f"{route} {rate:,.1f}" for route, rate in found[:MOST_ROUTES] if rate)


def latencies(history: History) -> Table:
    """Quantiles of the server's own histograms."""
    table = Table.grid(padding=(0, 2))
    table.add_row("", "p50", "p95")
    for label, name in LATENCIES.items():
        table.add_row(label, *(_ms(history.quantile(name, share)) for share in (0.5, 0.95)))
    return table


def _ms(value_s: float | None) -> str:
    if value_s is None:
        return NOTHING
    return f"{value_s:.1f} s" if value_s >= 10 else f"{value_s * 1000:,.0f} ms"


def curve(history: History) -> Text:
    """Tokens per second over the last minute; the tallest bar is the highest rate."""
    values = history.rates("generation_tokens_total")[-CURVE_LENGTH:]
    top = max(values, default=0.0)
    bars = "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] if top else BARS[0] for value in values)
    return Text.assemble(" tokens/s  ", (bars, "cyan"), f"  at most {top:,.0f}")
