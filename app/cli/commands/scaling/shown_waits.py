"""Waits that show how they go: a line that moves on a terminal, and one line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.cli.server_connection import CommandError
from app.cli.streams import make_console
from app.cluster.machine.head import HeadError

LOOK_S = 0.5


def wait_for(
    is_done: Callable[[], bool], what: str, timeout_s: float, progress: Callable[[], str] | None = None
) -> None:
    """Until ``is_done``; a head that does not answer for a moment is asked again. Raises ``CommandError``."""
    console = make_console()
    end_s = time.monotonic() + timeout_s
    shown = ""
    with console.status(what) as status:
        while True:
            try:
                if is_done():
                    return
                line = f"{what}: {progress()}" if progress is not None else what
            except HeadError as error:
                line = f"{what}: {error}"
            if line != shown and not console.is_terminal:
                console.print(line, markup=False)
            shown = line
            status.update(line)
            if time.monotonic() > end_s:
                raise CommandError(f"{line}: not done within {timeout_s:g} s")
            time.sleep(LOOK_S)
