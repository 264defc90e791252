"""``forklift top``: a server's workers, queue and speed in the terminal, as they are now."""

from __future__ import annotations

import time

import click
from rich.console import Console
from rich.live import Live

from app.cli.server_connection import CommandError, Server, key_option, make_server, url_option
from app.cli.streams import make_console
from app.cli.watching.history import History
from app.cli.watching.server_view import frame
from app.cli.watching.snapshot import look
from app.core.system.interrupts import interruptible


@click.command("top")
@url_option
@key_option
@click.option("--interval", "interval_s", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="s.")
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print one picture and end.")
def command(url: str, api_key: str | None, interval_s: float, once: bool) -> None:
    """Watch the workers, queue, tokens per second and latencies of a running server.

    Ctrl-C ends it. While the server does not answer, what was known last stays on the screen.

    Exit codes: 0 with --once, 130 after ctrl-C, 1 where --once gets no answer, 2 for wrong usage.
    """
    server = make_server(url, api_key)
    history = History()
    if once:
        history.add(look(server))
        time.sleep(interval_s)
        history.add(look(server))
        make_console().print(frame(server.shown_url, history))
        return
    watch(server, history, interval_s, make_console())


def watch(server: Server, history: History, interval_s: float, console: Console) -> None:
    """Until ctrl-C."""
    refresh(server, history)
    picture = Live(frame(server.shown_url, history), console=console, auto_refresh=False, screen=console.is_terminal)
    with interruptible(), picture as live:
        while True:
            live.update(frame(server.shown_url, history), refresh=True)
            time.sleep(interval_s)
            refresh(server, history)


def refresh(server: Server, history: History) -> None:
    """Look once more; a server that does not answer is noted."""
    try:
        history.add(look(server))
    except CommandError as error:
        history.failure = error.message
