"""``forklift servers``: the servers of a registry, live."""

from __future__ import annotations

import json
import time

import click
from rich.live import Live

from app.cli.server_connection import CommandError, key_option, make_server
from app.cli.streams import make_console
from app.cli.watching.fleet_view import picture, rows_of
from app.client import ClientError
from app.client.connection.grpc_address import is_grpc
from app.client.discovery.registry_opening import open_list
from app.client.discovery.server_choice import ServerChoice
from app.client.discovery.server_lists import ServerList
from app.core.system.interrupts import interruptible

REGISTRY_VARIABLE = "FORKLIFTCLIENT_REGISTRY"
FIRST_LIST_LIMIT_S = 10.0


@click.command("servers")
@click.argument("registry", envvar=REGISTRY_VARIABLE)
@key_option
@click.option("--interval", "interval_s", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="s.")
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table, and end.")
def command(registry: str, api_key: str | None, interval_s: float, once: bool, as_json: bool) -> None:
    """Watch the servers of REGISTRY: zookeeper://host:2181/forklift, or forklift://host:5000,host:5000.

    Each is asked for its state and load; the registry only says who is there. Ctrl-C ends it.

    Exit codes: 0 with --once or --json, 130 after ctrl-C, 1 where no server is found, 2 for wrong usage.
    """
    # A key that cannot be sent is told now, and not as servers that do not answer.
    key = make_server("http://localhost", api_key).api_key
    if is_grpc(registry):
        raise CommandError("servers are asked for their state over HTTP: give forklift://host:5000,host:5000")
    try:
        shown_url, servers = open_list(registry)
    except ClientError as error:
        raise CommandError(str(error)) from None
    known = ServerChoice()
    servers.follow(known.take)
    try:
        if not known.wait_for_servers(FIRST_LIST_LIMIT_S):
            raise CommandError(f"{shown_url} {'holds no server' if servers.is_connected else 'does not answer'}")
        if as_json:
            click.echo(json.dumps(rows_of(known.entries, key), indent=1))
        elif once:
            make_console().print(picture(shown_url, servers.is_connected, rows_of(known.entries, key)))
        else:
            watch(shown_url, servers, known, key, interval_s)
    finally:
        servers.close()


def watch(shown_url: str, servers: ServerList, known: ServerChoice, api_key: str | None, interval_s: float) -> None:
    """Until ctrl-C."""
    console = make_console()
    with interruptible(), Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            rows = rows_of(known.entries, api_key)
            live.update(picture(shown_url, servers.is_connected, rows), refresh=True)
            time.sleep(interval_s)
