"""What tests see of other processes."""

from __future__ import annotations

import os
import select


def is_alive(pid: int) -> bool:
    """Whether any thread of the process still runs; a zombie counts as gone.

    The state in ``/proc`` is the first thread's alone: the others may hold the process's files open for longer.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return not poller.poll(0)
    finally:
        os.close(pidfd)
