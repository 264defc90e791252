"""``forklift scale status``: nodes and replicas of a cluster as they are now."""

from __future__ import annotations

import json
import sys

import click
from rich.table import Table

from app.cli.commands.scaling.cluster_options import dashboard_option, make_head, make_node, told_in_one_line, view
from app.cli.streams import cell, make_console
from app.cluster.machine.cluster_view import ClusterView
from app.core.logs.printable import printable
from app.core.settings import load_settings

NODES = ("address", "node_id", "state", "proxy", "num_replicas")
REPLICAS = ("instance", "address", "state", "pid")


@click.command("status")
@dashboard_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def command(dashboard: str | None, as_json: bool) -> None:
    """Show the nodes of a cluster, their proxies, and every replica with its state.

    Exit codes: 0 where all replicas that are wanted serve, 1 where not or where the head does not answer, 2 for wrong
    usage.
    """
    with told_in_one_line():
        found = view(make_head(make_node(load_settings()), dashboard))
    if as_json:
        click.echo(json.dumps({"ready": found.is_ready, **found.as_dict()}, indent=1))
    else:
        show(found)
    sys.exit(0 if found.is_ready else 1)


def show(found: ClusterView) -> None:
    """Two tables, and one line about the whole."""
    console = make_console()
    for names, rows in ((NODES, found.nodes), (REPLICAS, found.replicas)):
        table = Table(box=None, padding=(0, 1, 0, 0))
        for name in names:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(cell(getattr(row, name)) for name in names))
        console.print(table)
    state = found.state or "nothing is deployed"
    click.echo(printable(f"{state}: {found.num_running} of {found.num_wanted} replicas serve {found.message}".strip()))
