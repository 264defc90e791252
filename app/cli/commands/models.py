"""``forklift models``: what a server serves, or what model folders hold, without loading a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from app.cli.checking.findings import gib
from app.cli.server_connection import DEFAULT_URL, URL_VARIABLE, CommandError, Server, key_option, listed, make_server
from app.cli.streams import cell, make_console
from app.client.connection.server_urls import shown_url

DEEPEST = 4
COLUMNS = ("name", "task", "architecture", "parameters", "bytes", "dtype", "context_tokens", "chat", "infill", "fault")
HEADS = {"parameters": "params", "context_tokens": "context"}
LONG = ("name", "architecture", "fault")


@click.command("models")
@click.argument("place", default=DEFAULT_URL, envvar=URL_VARIABLE)
@key_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def command(place: str, api_key: str | None, as_json: bool) -> None:
    """List the models of the server at the URL PLACE, or the model folders in and below the directory PLACE.

    Of folders only configs, tokenizers and the headers of safetensors and GGUF files are read; code that lies beside
    weights is not run.

    Exit codes: 0, 1 where the server does not answer or the directory has no model folder, 2 for wrong usage.
    """
    is_url = place.strip().startswith(("http://", "https://"))
    rows = of_server(make_server(place, api_key)) if is_url else of_directory(Path(place))
    if not rows:
        raise CommandError(f"no model in {shown_url(place)}")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        show(rows)


def of_server(server: Server) -> list[dict[str, Any]]:
    """From ``/v1/capabilities``; of other OpenAI-style servers the names are all there is."""
    response = server.get("/v1/capabilities")
    if response.status == 404:
        return [{"name": name} for name in listed(server.get("/v1/models"))]
    return [_served(name, one) for name, one in listed(response).items()]


def _served(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """A row of what a server tells of one model; only what is known."""
    supports = found if isinstance(found := told.get("supports"), dict) else {}
    row = {"name": name, **{key: told.get(key) for key in ("task", "dtype", "context_tokens", "state")}}
    row |= {"chat": supports.get("chat"), "infill": supports.get("infill")}
    row |= {"quantization": told["quantization"]} if told.get("quantization", "none") != "none" else {}
    return {key: value for key, value in row.items() if value is not None}


def of_directory(directory: Path) -> list[dict[str, Any]]:
    """A row for each folder with a config.json, and each GGUF file."""
    if not directory.is_dir():
        raise CommandError(f"{directory} is neither a directory nor a URL")
    from app.cli.checking.folders import describe

    return [{"name": name_of(folder, directory), **describe(folder)} for folder in model_folders(directory)]


def name_of(folder: Path, directory: Path) -> str:
    """The path below ``directory``, or the folder's own name."""
    return folder.resolve().name if folder == directory else str(folder.relative_to(directory))


def model_folders(directory: Path, depth: int = DEEPEST) -> list[Path]:
    """In ``directory`` or below, by name; a model folder's own folders are parts of it. GGUF files are models, too."""
    if (directory / "config.json").is_file() and any(directory.glob("*.safetensors")):
        return [directory]
    visible = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    files = [path for path in visible if path.suffix == ".gguf" and path.is_file()]
    if not files and (directory / "config.json").is_file():
        return [directory]
    inner = [path for path in visible if path.is_dir() and depth]
    return files + [found for folder in inner for found in model_folders(folder, depth - 1)]


def show(rows: list[dict[str, Any]]) -> None:
    """A table of the columns that any row has."""
    names = [name for name in (*COLUMNS, "quantization", "state") if any(name in row for row in rows)]
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(HEADS.get(name, name), overflow="fold", no_wrap=name not in LONG)
    for row in rows:
        table.add_row(*(shown(name, row.get(name)) for name in names))
    make_console().print(table)


def shown(name: str, value: Any) -> Text:
    """A value for people."""
    if value is None:
        return cell("")
    if isinstance(value, bool):
        return cell("yes" if value else "no")
    if name == "bytes":
        return cell(gib(value))
    if name == "parameters":
        return cell(f"{value / 1e9:.2f}B" if value >= 1e9 else f"{value / 1e6:.1f}M")
    return cell(value)
