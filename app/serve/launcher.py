"""``gunicorn wsgi:app`` without the working folder on Python's path; run as a file by ``forklift serve``, ``make run``.

Gunicorn puts the folder that it is started in before everything else, so an ``app.py`` or ``json/``
that happens to lie there would be run in place of ours. Relative paths of settings still mean that folder.
Until Gunicorn has handlers of its own, ctrl-C ends the program at once: what is imported here takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Serve until told to stop."""
    # Last: this file may lie in site-packages, which is there already.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from app.core.system.interrupts import leave_at_once

    leave_at_once()
    # Blocked by `forklift serve`, for the time in which Python itself starts.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    launch()


def launch() -> None:
    """Become Gunicorn."""
    from gunicorn.app.wsgiapp import WSGIApplication

    class Launcher(WSGIApplication):  # type: ignore[misc]  # gunicorn has no type information
        """Gunicorn's own program, but for ``sys.path``."""

        def chdir(self) -> None:
            os.chdir(self.cfg.chdir)

    Launcher("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").run()


if __name__ == "__main__":
    main()
