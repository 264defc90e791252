"""The folder in which the workers of one server share their metrics. Made and removed by the master.

It must be in the environment before anything imports prometheus_client, which looks for it then; so
this module does not import ``app.core.metrics``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from app.serve.board import memory_folder

# The name is prometheus_client's.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def make_metrics_folder() -> None:
    """Make a fresh folder, tell it to all processes to be, and remove it when this process exits."""
    folder = tempfile.mkdtemp(prefix="forklift-metrics-", dir=memory_folder())
    os.environ[FOLDER] = folder
    atexit.register(_remove, folder, os.getpid())


def remove_orphaned() -> None:
    """For a worker whose master was killed and cannot remove the folder any more."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def _remove(folder: str, owner_pid: int) -> None:
    # A forked child inherits what is to be done at exit.
    if os.getpid() == owner_pid:
        shutil.rmtree(folder, ignore_errors=True)
