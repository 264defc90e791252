"""Has the other end of a connection hung up? Asked of the kernel, so that unread bytes hide nothing. Any thread."""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress

# Where the system has no such event (macOS), POLLHUP says the same.
_ENDED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_BROKEN = select.POLLHUP | select.POLLERR
# What a TLS client sends behind its request is read and dropped up to here at each look.
_MAX_RECORDS = 16
_RECORD_BYTES = 16_384


def has_ended(sock: socket.socket) -> bool:
    """Whether the other end sends no more: it closed its side (FIN, TLS's close_notify) or reset the connection.

    A TLS client says goodbye inside a record, so records are read here; what they hold would never be served, for a
    connection carries one request.
    """
    return bool(_poll(sock, _ENDED)) or (isinstance(sock, ssl.SSLSocket) and _has_said_goodbye(sock))


def is_broken(sock: socket.socket) -> bool:
    """Whether nothing can be sent to the other end any more."""
    return bool(_poll(sock, _BROKEN))


def _poll(sock: socket.socket, events: int) -> int:
    if sock.fileno() < 0:
        return events
    poller = select.poll()
    poller.register(sock, events)
    return next((found & events for _, found in poller.poll(0)), 0)


def _has_said_goodbye(sock: ssl.SSLSocket) -> bool:
    timeout_s = sock.gettimeout()
    sock.settimeout(0)
    try:
        return any(sock.recv(_RECORD_BYTES) == b"" for _ in range(_MAX_RECORDS))
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
        return False
    except (OSError, ValueError):
        return True
    finally:
        with suppress(OSError):
            sock.settimeout(timeout_s)
