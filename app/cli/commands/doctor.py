"""``forklift doctor``: finds what would keep a server from starting or from serving as it should."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable

import click
from rich.table import Table
from rich.text import Text

from app.cli.checking import server as server_checks
from app.cli.checking.everything import examine
from app.cli.checking.findings import Finding, counted
from app.cli.server_connection import key_option, make_server
from app.cli.streams import cell, make_console
from app.core.logs.printable import printable

SIGNS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "red")}


@click.command("doctor")
@click.option("--model", help="Model folder to check instead of that of FORKLIFT_MODEL or FORKLIFT_MODELS.")
@click.option("--url", help="Check the server that runs there instead of this machine.")
@key_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def command(model: str | None, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Check this machine and the FORKLIFT_ settings, and name each fault in one line with what to do.

    Looks at libraries, address, shared memory, open files, disk, proxies, gRPC port, registry, cluster, GPUs, model
    folders, tokenizer and memory. Weights are not loaded.

    Exit codes: 0 no fault, 1 at least one, 2 for wrong usage, 130 after ctrl-C.
    """
    if url is not None and model is not None:
        raise click.UsageError("--model and --url cannot be given together")
    found = server_checks.check(make_server(url, api_key)) if url else examine(environment(model))
    findings = list(found)
    num_faults = sum(finding.level == "fault" for finding in findings)
    if as_json:
        rows = [finding.as_dict() for finding in findings]
        click.echo(json.dumps({"ok": not num_faults, "findings": rows}, indent=1))
    else:
        show(findings)
        click.echo(counted(num_faults, "fault"))
    sys.exit(1 if num_faults else 0)


def environment(model: str | None) -> dict[str, str]:
    """What the server would be started with."""
    if model is None:
        return dict(os.environ)
    kept = {name: value for name, value in os.environ.items() if name not in ("FORKLIFT_MODELS", "FORKLIFT_MODEL_NAME")}
    return {**kept, "FORKLIFT_MODEL": model}


def show(findings: Iterable[Finding]) -> None:
    """A row for each finding; lines are folded, never cut."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name in ("check", "level", "text"):
        table.add_column(name, overflow="fold")
    for one in findings:
        text = Text(printable(one.text))
        if one.advice:
            text.append(f"\n{printable(one.advice)}", "dim")
        table.add_row(cell(one.check), Text(*SIGNS[one.level]), text)
    make_console().print(table)
