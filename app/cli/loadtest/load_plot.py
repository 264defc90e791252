"""The picture of a load: how long requests took, and how the rate went. Needs matplotlib (extra ``report``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.loadtest.figures import Summary, times
from app.reports.picture import legend_below, logarithmic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_BUCKETS = 40
LABELS = {"ttft": "first token", "itl": "between tokens", "total": "whole request"}


def draw(summary: Summary, title: str, file: Path) -> None:
    """Write a PNG: left the share of requests below each time, right tokens per second over the load."""
    figure_of(summary, title).savefig(file, dpi=120, format="png")


def figure_of(summary: Summary, title: str) -> Figure:
    """The same, not yet written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, values in times(summary.ok).items():
        if name in LABELS and values:
            shares = [100 * (i + 1) / len(values) for i in range(len(values))]
            left.step([value * 1000 for value in values], shares, where="post", label=LABELS[name])
    left.set(xlabel="milliseconds", ylabel="% of requests below", ylim=(0, 101), title="latency")
    if left.lines:
        logarithmic(left, "x")
    legend_below(figure, left)
    left.grid(alpha=0.3)
    width_s, rates = token_rates(summary)
    right.bar([i * width_s for i in range(len(rates))], rates, width=width_s, align="edge")
    right.axhline(summary.tokens_per_s, color="black", linewidth=1, linestyle="--")
    right.set(xlabel="seconds", ylabel="tokens/s", title=f"{summary.tokens_per_s:,.0f} tokens/s over all")
    right.grid(alpha=0.3)
    figure.suptitle(title)
    return figure


def token_rates(summary: Summary) -> tuple[float, list[float]]:
    """Width of a bucket in seconds, and tokens per second in each; a request's tokens are spread over its decoding."""
    width_s = summary.duration_s / NUM_BUCKETS
    buckets = [0.0] * NUM_BUCKETS
    for one in summary.ok:
        begin = one.started_s + (one.ttft_s or 0.0)
        step = (one.ended_s - begin) / max(one.num_tokens, 1)
        for i in range(one.num_tokens):
            buckets[min(int((begin + (i + 1) * step) / width_s), NUM_BUCKETS - 1)] += 1
    return width_s, [count / width_s for count in buckets]
