"""The console script ``forklift``: ctrl-C has its meaning before the commands are imported."""

from __future__ import annotations

from app.core.system.interrupts import leave_at_once


def run() -> None:
    """Run the program; never returns."""
    leave_at_once()
    from app.cli.main import main

    main()
