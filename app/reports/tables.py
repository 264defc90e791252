"""Reports as tables for a terminal. Figures come as their JSON has them."""

from __future__ import annotations

from typing import Any

from rich.table import Table

PRECISION_COLUMNS = ("precision", "perplexity", "KL mean", "KL max", "top-1", "greedy", "load", "MiB", "tokens/s")
CAPTION = (
    "KL in nats from the baseline; top-1: same likeliest token; greedy: first other token of each prompt, = where "
    "none; load in seconds; MiB: resident memory beyond the libraries'; "
    "tokens/s: one prompt at a time, and 16 together"
)


def precision_table(report: dict[str, Any]) -> Table:
    """A row for each precision, the baseline first."""
    table = Table(
        title=f"{report['model']}: precision against {report['baseline']}", caption=CAPTION, box=None, pad_edge=False
    )
    for i, name in enumerate(PRECISION_COLUMNS):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in report["rows"]:
        table.add_row(*precision_cells(row))
    return table


def precision_cells(row: dict[str, Any]) -> list[str]:
    """One row's figures as text; a baseline has no distance from itself."""
    is_baseline = row["mean_kl"] is None
    distance = ["-"] * 4
    if not is_baseline:
        distance = [f"{row['mean_kl']:.1e}", f"{row['max_kl']:.1e}", f"{row['top1_agreement']:.1%}", divergence(row)]
    return [
        row["precision"],
        f"{row['perplexity']:,.2f}",
        *distance,
        f"{row['load_s']:.1f}",
        f"{row['resident_bytes'] / 2**20:,.0f}",
        f"{row['tokens_per_s']:,.3g} {row['batch_tokens_per_s']:,.3g}",
    ]


def divergence(row: dict[str, Any]) -> str:
    """Per prompt the first greedy token that is not the baseline's; "=" where every one is."""
    return " ".join("=" if at is None else str(at) for at in row["greedy_diverges_at"])


def resources_tables(report: dict[str, Any]) -> list[Table]:
    """What was measured, and what fits where that is known."""
    table = Table(
        title=f"{report['model']}: {report['dtype']}, quantization {report['quantization']}", show_header=False
    )
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in resource_lines(report):
        table.add_row(name, value)
    return [table, *([fitting_table(report)] if report["fits"] is not None else [])]


def resource_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and figure of each thing measured."""
    disk, ram, gpu = report["disk"], report["ram"], report["gpu"]
    lines = [("device", report["device"]), ("load", f"{report['load_s']:.1f} s")]
    if disk:
        lines += [("disk, folder", size(disk["folder_bytes"])), ("disk, weights", size(disk["weights_bytes"]))]
    lines += [
        ("RAM before the model", size(ram["before_bytes"])),
        ("RAM, peak while loading", size(ram["peak_bytes"])),
        ("RAM, at rest", size(ram["at_rest_bytes"])),
        ("weights in memory", size(report["weights_bytes"])),
    ]
    if gpu:
        lines += [("GPU, peak", size(gpu["peak_bytes"])), ("GPU, at rest", size(gpu["allocated_bytes"]))]
    if report["kv_bytes_per_token"] is not None:
        lines.append(("KV cache per token", f"{report['kv_bytes_per_token']:,} bytes"))
    return [*lines, ("free with the model loaded", size(report["free_bytes"]))]


def fitting_table(report: dict[str, Any]) -> Table:
    """The largest batch for each context."""
    table = Table(title="what fits the free memory, every row full")
    table.add_column("MAX_CONTEXT_TOKENS", justify="right")
    table.add_column("largest MAX_BATCH_SIZE", justify="right")
    for row in report["fits"]:
        table.add_row(f"{row['context_tokens']:,}", f"{row['max_batch_size']:,}")
    return table


def size(num_bytes: int) -> str:
    """In MiB, or GiB from one on."""
    return f"{num_bytes / 2**30:,.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.1f} MiB"
