"""``forklift report``: what a model's precisions cost, and what serving it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

import app
from app.cli.output_files import json_option, plot_option
from app.cli.server_connection import CommandError
from app.cli.streams import make_console
from app.core.errors import ForkliftError
from app.core.settings import load_settings
from app.core.system.interrupts import interruptible
from app.reports.measuring_process import run_child
from app.reports.precision import PRECISIONS, Text, default_text, precision_report
from app.reports.precision_plot import draw
from app.reports.tables import precision_table, resources_tables

DEVICES = ("auto", "cpu", "cuda")
Advance = Callable[[str, float], None]


@click.group("report")
def command() -> None:
    """Measure what a model costs on this machine: accuracy per precision, memory, what fits."""


def names_of(_context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """The precisions of a comma-separated list, each known and named once."""
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        if name not in PRECISIONS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(PRECISIONS)}", param=parameter)
    if not names or len(set(names)) < len(names):
        raise click.BadParameter("name each candidate once", param=parameter)
    return names


def text_of(_context: click.Context, parameter: click.Parameter, value: Path | None) -> Text:
    """The text of a file, or the default one."""
    if value is None:
        return default_text()
    try:
        return Text(value.name, value.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror}", param=parameter) from None
    except UnicodeDecodeError:
        raise click.BadParameter(f"{value} is not UTF-8 text", param=parameter) from None


model_option = click.option("--model", help="Folder or hub id. Default: FORKLIFT_MODEL, or the demo model.")
device_option = click.option("--device", type=click.Choice(DEVICES), help="Default: FORKLIFT_DEVICE, or auto.")
figures_option = json_option("Write the figures.")


@command.command("precision")
@model_option
@click.option("--baseline", type=click.Choice(list(PRECISIONS)), default="float32", show_default=True)
@click.option(
    "--candidates", callback=names_of, default="bfloat16,float16,int8,int4", show_default=True, help="Comma-separated."
)
@click.option(
    "--text", callback=text_of, type=click.Path(path_type=Path), help="UTF-8 file to score. Default: our own sources."
)
@click.option("--tokens", "num_tokens", type=click.IntRange(2), default=1024, show_default=True, help="Of the text.")
@click.option("--window", "window_tokens", type=click.IntRange(2), default=256, show_default=True, help="Per pass.")
@device_option
@figures_option
@plot_option("Draw a PNG.")
def precision(
    model: str | None,
    baseline: str,
    candidates: tuple[str, ...],
    text: Text,
    num_tokens: int,
    window_tokens: int,
    device: str | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Compare the next-token distributions of several precisions with a baseline's.

    Each precision is loaded in a process of its own, scores the same text and continues four prompts greedily. The
    baseline's logits wait in the temporary folder: 4 bytes x vocabulary for each token of the text.

    Exit codes: 0, 1 when a model cannot be loaded or measured, 2 for wrong usage, 130 after ctrl-C.
    """
    if baseline in candidates:
        raise click.UsageError(f"{baseline} is the baseline; name other candidates")
    environ = environment(model, device)
    with progress_of((baseline, *candidates)) as advance:
        report = precision_report(environ, baseline, candidates, text, num_tokens, window_tokens, advance)
    make_console().print(precision_table(report))
    save(report, json_file)
    if plot_file:
        draw(report, plot_file)


@command.command("resources")
@model_option
@click.option("--precision", "name", type=click.Choice(list(PRECISIONS)), help="Default: the settings'.")
@device_option
@figures_option
def resources(model: str | None, name: str | None, device: str | None, json_file: Path | None) -> None:
    """Load a model as a worker does and tell what it takes: disk, memory, KV cache, the batches that fit.

    Exit codes: 0, 1 when the model cannot be loaded, 2 for wrong usage, 130 after ctrl-C.
    """
    environ = environment(model, device) | (PRECISIONS[name] if name else {}) | {"FORKLIFT_MAX_BATCH_SIZE": "1"}
    with progress_of(("load",)) as advance:
        settings = load_settings(environ)
        figures = run_child({"measure": "resources"}, environ, lambda share: advance("load", share))
    report = {"report": "resources", "version": app.__version__, "model": settings.model, **figures}
    for table in resources_tables(report):
        make_console().print(table)
    save(report, json_file)


def environment(model: str | None, device: str | None) -> dict[str, str]:
    """The process's, with one model to be loaded on one device."""
    given = {"FORKLIFT_MODEL": model, "FORKLIFT_DEVICE": device}
    dropped = ("FORKLIFT_MODELS", "FORKLIFT_MODEL_NAME")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {name: value for name, value in given.items() if value is not None}


@contextmanager
def progress_of(names: tuple[str, ...]) -> Iterator[Advance]:
    """A bar on standard error that runs through ``names``; what goes wrong inside ends the command with a line."""
    console = make_console(stderr=True)
    with interruptible(), Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(names[0], total=len(names))
        try:
            yield lambda name, share: bar.update(task, description=name, completed=names.index(name) + share)
        except ForkliftError as error:
            raise CommandError(str(error)) from None


def save(report: dict[str, Any], file: Path | None) -> None:
    """Write the figures as JSON where a file was named."""
    if file:
        file.write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
