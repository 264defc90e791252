"""The servers of a registry, each asked how it is now; rows for programs, and a table for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.cli.server_connection import CommandError, Server, listed
from app.cli.streams import cell
from app.cli.watching.server_view import NOTHING, STYLES
from app.client import ForeignAnswerError, ServerEntry

TIMEOUT_S = 2.0
NUM_ASKED_AT_ONCE = 32
LONGEST_STATE = 40
COLUMNS = ("server", "state", "load", "models", "zone", "weight", "version")


def rows_of(entries: Sequence[ServerEntry], api_key: str | None) -> list[dict[str, Any]]:
    """What the registry says of each server, and what it says itself: ``answers``, ``load``, its state now."""
    if not entries:
        return []
    with ThreadPoolExecutor(NUM_ASKED_AT_ONCE) as pool:
        return list(pool.map(lambda entry: row_of(entry, api_key), sorted(entries, key=lambda one: one.http)))


def row_of(entry: ServerEntry, api_key: str | None) -> dict[str, Any]:
    row = {**asdict(entry), "answers": False, "load": None}
    server = Server(entry.http, api_key)
    with suppress(CommandError, ForeignAnswerError, KeyError, TypeError):
        answer = server.get("/readyz", TIMEOUT_S)
        row["state"] = str(answer.json()["state"])[:LONGEST_STATE]
        row["load"] = answer.headers.get("X-Load")
        row["answers"] = True
        if entry.models is None:
            row["models"] = list(listed(server.get("/v1/models", TIMEOUT_S)))
    return row


def picture(shown_url: str, is_connected: bool, rows: Sequence[dict[str, Any]]) -> RenderableType:
    """A line about the registry, and a row for each server."""
    line = Text.assemble((" forklift ", "bold reverse"), f" {shown_url}  {time.strftime('%H:%M:%S')}  ")
    line.append(f"{len(rows)} servers" if is_connected else "the registry does not answer; what was known last:")
    table = Table(box=SIMPLE_HEAD, expand=True, padding=0)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("load", "weight") else "left", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    return Group(line, table)


def _cells(row: dict[str, Any]) -> list[RenderableType]:
    state = str(row["state"]) if row["answers"] else "no answer"
    models = NOTHING if row["models"] is None else ", ".join(row["models"])
    named = (row["load"] or NOTHING, models, row["zone"] or NOTHING, row["weight"], row["version"] or NOTHING)
    return [cell(row["http"]), cell(state, STYLES.get(state, "bold red")), *map(cell, named)]
