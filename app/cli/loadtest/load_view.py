"""A load on the terminal: the live picture and the final table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app.cli.loadtest.figures import SHARES, Summary
from app.cli.loadtest.loops import Load
from app.core.logs.printable import printable

NAMES = {
    "ttft": "time to first token",
    "itl": "between tokens (mean of a request)",
    "gap": "between pieces of a stream",
    "total": "whole request",
}


class LiveView:
    """Rendered again and again while ``load`` runs. ``goal`` is requests, or seconds where there is no such bound."""

    def __init__(self, load: Load, num_requests: int | None, duration_s: float | None):
        self._load = load
        self._is_timed = num_requests is None
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        self._progress = Progress(*columns, TimeElapsedColumn())
        self._task = self._progress.add_task("requests", total=num_requests or duration_s)

    def __rich__(self) -> RenderableType:
        summary = self._load.summary()
        done = summary.duration_s if self._is_timed else len(summary.results)
        self._progress.update(self._task, completed=done)
        return Group(self._progress, table(summary), f"{self._load.num_running} running")


def table(summary: Summary) -> Table:
    """Rates, counts and percentiles."""
    figures = summary.as_dict()
    found = Table()
    for name in ("", *(f"p{share}" for share in SHARES)):
        found.add_column(name, justify="right" if name else "left")
    for name, label in NAMES.items():
        cells = [figures[f"{name}_p{share}_ms"] for share in SHARES]
        if any(cell is not None for cell in cells):
            found.add_row(f"{label}, ms", *("" if cell is None else f"{cell:,.1f}" for cell in cells))
    found.add_section()
    found.add_row("requests/s", f"{figures['requests_per_s']:,.2f}")
    found.add_row("tokens/s", f"{figures['tokens_per_s']:,.1f}")
    found.add_row("answered", f"{figures['ok']:,.0f}")
    for error, count in summary.errors().items():
        found.add_row(Text(printable(f"failed, {error}"), "red"), str(count))
    return found
