"""``forklift cache``: the compiled packages that are kept."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.table import Table

from app.cli.server_connection import CommandError
from app.cli.streams import cell, make_console
from app.core.errors import SettingsError
from app.core.logs.printable import printable
from app.core.settings import load_settings
from app.models.compiled.package_store import Package, PackageError, Store

COLUMNS = ("package", "model", "bytes", "eager_ms", "compiled_ms", "used", "loads")


@click.command("cache")
@click.option("--clear", is_flag=True, help="Remove every package.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def command(clear: bool, as_json: bool) -> None:
    """List the compiled packages in FORKLIFT_CACHE_DIR, or remove them.

    At most FORKLIFT_CACHE_MAX_BYTES are kept; where one more comes, those that were not used for longest leave.

    Exit codes: 0, 1 where packages cannot be removed, 2 for wrong usage.
    """
    try:
        settings = load_settings()
        store = Store(settings.cache_path, settings.cache_max_bytes)
        if clear:
            click.echo(printable(f"{store.folder}: {store.clear() / 1e6:.1f} MB removed"))
            return
        rows = [row_of(package, store) for package in store.packages()]
    except (PackageError, SettingsError) as error:
        raise CommandError(str(error)) from None
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif rows:
        show(rows)
    else:
        click.echo(printable(f"no package in {store.folder}"))


def row_of(package: Package, store: Store) -> dict[str, Any]:
    """What is told of a package; ``loads``: yes, or why a server would not load it."""
    about = package.about
    named = {name: about.get(name) for name in ("model", "eager_ms", "compiled_ms")}
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(package.used_s))
    return {"package": package.key, **named, "bytes": package.num_bytes, "used": used, "loads": loads(package, store)}


def loads(package: Package, store: Store) -> str:
    """Whether the files are whole and nobody else's; machine and versions are a server's to compare."""
    try:
        store.check(package.key)
    except PackageError as error:
        return str(error)
    return "yes"


def show(rows: list[dict[str, Any]]) -> None:
    """A table of the packages."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, overflow="fold", no_wrap=name.endswith("_ms"))
    for row in rows:
        table.add_row(*(cell("" if row[name] is None else row[name]) for name in COLUMNS))
    make_console().print(table)
