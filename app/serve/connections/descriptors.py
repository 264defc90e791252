"""File descriptors: how many connections a worker may hold, and what to do when none is left. Main thread."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import suppress
from typing import Any

from app.core.logs.logging import get_logger

# For files that are opened while requests are served: weights, metrics, pipes.
NUM_RESERVED = 64
MIN_CONNECTIONS = 8
_NOBODY_THERE = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR)
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = get_logger("serve")


def is_harmless(error: OSError) -> bool:
    """Whether ``accept`` failed because the client has gone again."""
    return error.errno in _NOBODY_THERE


def is_shortage(error: OSError) -> bool:
    return error.errno in _SHORTAGES


class Descriptors:
    """Keeps one descriptor in hand, so that a client can be told when there is no other."""

    def __init__(self) -> None:
        self._spare = _open_spare()
        self._has_told = False

    def max_connections(self, wanted: int) -> int:
        """At most ``wanted``, and no more than the limit of this process leaves room for."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return wanted
        return max(MIN_CONNECTIONS, min(wanted, limit - NUM_RESERVED))

    def turn_away(self, listener: Any, answer: bytes) -> None:
        """Give the spare descriptor to the next client, for as long as it takes to tell it why."""
        if not self._has_told:
            self._has_told = True
            log.error("no_file_descriptors")
        if self._spare is not None:
            os.close(self._spare)
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                sock.setblocking(False)
                with suppress(OSError):
                    sock.recv(65_536)
                sock.send(answer)
                sock.shutdown(socket.SHUT_WR)
        self._spare = _open_spare()


def _open_spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
