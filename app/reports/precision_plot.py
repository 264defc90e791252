"""The picture of a precision report. Needs matplotlib (extra ``report``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.reports.picture import legend_below, slanted_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Divergence of exactly nothing has no place on a logarithmic axis.
LEAST_KL = 1e-12


def draw(report: dict[str, Any], file: Path) -> None:
    """Write a PNG: divergence of the candidates, then resident memory and tokens per second of all."""
    figure_of(report).savefig(file, dpi=120, format="png")


def figure_of(report: dict[str, Any]) -> Figure:
    """The same, not yet written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    rows = report["rows"]
    names = [row["precision"] for row in rows]
    for key, label in (("max_kl", "largest"), ("mean_kl", "mean")):
        left.plot(names[1:], [max(row[key], LEAST_KL) for row in rows[1:]], marker="o", linestyle="none", label=label)
    left.set(yscale="log", ylabel="nats", title=f"KL divergence from {report['baseline']}")
    legend_below(figure, left)
    middle.bar(names, [row["resident_bytes"] / 2**20 for row in rows])
    middle.set(ylabel="MiB", title="resident memory")
    right.bar(names, [row["tokens_per_s"] for row in rows])
    right.set(ylabel="tokens/s", title="greedy, one prompt at a time")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3, axis="y")
        slanted_names(axes)
    figure.suptitle(str(report["model"]))
    return figure
