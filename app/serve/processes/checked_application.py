"""What ``gunicorn --check-config wsgi:app`` gets for an application: settings, models' folders and options are checked.

The configuration file has looked at settings and folders by then; Gunicorn hands its own options to nobody here,
so they are read once more. Master; no torch, and no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn.app.wsgiapp import WSGIApplication

from app.serve.processes import preparation


def check() -> Callable[..., Any]:
    """An application that is never called. Ends the process with one line where an option cannot be served with."""
    preparation.check_configuration(WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").cfg)
    return nothing


def nothing(_environ: object, _start_response: object) -> list[bytes]:
    """Stands for the application, which needs a worker."""
    return []
