"""In the pictures that commands write, nothing lies over anything else."""

from __future__ import annotations

import itertools

import pytest

from app.cli.loadtest.figures import Result, Summary
from app.cli.loadtest.load_plot import figure_of as load_figure
from app.reports.precision_plot import figure_of as precision_figure
from tests.thinned import few_of

pytest.importorskip("matplotlib")
NAMES = ["float32", "bfloat16", "bfloat16/int8", "bfloat16/int4", "float16/int8-fast"]


def load(slowest_s):
    results = [
        Result(
            200, slowest_s * (1 + i) / 40, 20, slowest_s / 400 * (1 + i), (0.01 * (1 + i % 7),) * 19, started_s=i / 10
        )
        for i in range(40)
    ]
    return load_figure(Summary(60.0, results), "http://127.0.0.1:5000/v1/completions, 20 clients, 128 + 64 tokens")


def precision():
    rows = [
        {
            "precision": name,
            "max_kl": 10.0**-i,
            "mean_kl": 10.0 ** -(i + 2),
            "resident_bytes": 2**30,
            "tokens_per_s": 9.5,
        }
        for i, name in enumerate(NAMES)
    ]
    return precision_figure({"rows": rows, "baseline": "float32", "model": "/models/of/a/long/name"})


PICTURES = {"fast": lambda: load(0.2), "usual": lambda: load(4.0), "slow": lambda: load(900.0), "precision": precision}


@pytest.mark.parametrize("name", few_of(PICTURES, 1))
def test_ticks_and_legends_leave_everything_else_alone(name):
    figure = PICTURES[name]()
    figure.draw_without_rendering()
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label for label in labels if label.get_text() and label.get_visible()]
            # Boxes around slanted names overlap where the names do not.
            boxes = [label.get_window_extent() for label in shown if label.get_rotation() == 0]
            assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    [legend] = figure.legends
    box = legend.get_window_extent()
    assert box.y0 >= 0 and box.x1 <= figure.bbox.x1, "inside the picture"
    for axes in figure.axes:
        assert not box.overlaps(axes.get_tightbbox())
