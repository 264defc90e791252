"""Options that name a file to be written: what would keep it from being is found out before any work is done."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def json_option(text: str) -> Callable[[Any], Any]:
    """``--json FILE``."""
    return click.option("--json", "json_file", type=FILE, callback=file_to_write, help=text)


def plot_option(text: str) -> Callable[[Any], Any]:
    """``--plot FILE``; refused where matplotlib is not installed."""
    return click.option("--plot", "plot_file", type=FILE, callback=picture_to_draw, help=text)


def file_to_write(_context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A file whose folder is there."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"the folder {value.parent} does not exist", param=parameter)
    return value


def picture_to_draw(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """The same, where there is something to draw with."""
    if value is not None and not can_plot():
        raise click.UsageError("--plot needs matplotlib: pip install 'forklift-serve[report]'", context)
    return file_to_write(context, parameter, value)


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    try:
        return find_spec("matplotlib") is not None
    except ValueError:
        return False
