"""Ticks and legends that leave each other and the curves alone. Needs matplotlib (extra ``report``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def legend_below(figure: Figure, axes: Axes) -> None:
    """Name the curves of the leftmost axes, if there are any, under everything; for a constrained layout."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, frameon=False, loc="outside lower left", ncols=len(labels))


def logarithmic(axes: Axes, name: Literal["x", "y"]) -> None:
    """A logarithmic axis whose ticks are numbers as people write them: 20, 50, 100."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = (axes.get_xlim if name == "x" else axes.get_ylim)()
    steps = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def slanted_names(axes: Axes) -> None:
    """Names under bars, however many and long."""
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
