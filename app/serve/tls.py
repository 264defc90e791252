"""TLS for connections that are read without blocking. Main thread of a worker.

A wrapped socket does its handshake inside ``recv``, piece by piece as the client's bytes come, so a
client that stalls in its handshake costs what a silent one does. OpenSSL reads record by record and
keeps none back: what is not read yet stays in the kernel, where the poller sees it.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.sock import ssl_context

from app.core.logging import get_logger

log = get_logger("serve")


class Door:
    """Wraps accepted connections, and takes up a renewed certificate without a restart."""

    def __init__(self, cfg: Any):
        self._cfg = cfg
        self._files = [Path(path) for path in (cfg.certfile, cfg.keyfile) if path]
        self._stamps = self._look()
        self._context: ssl.SSLContext = ssl_context(cfg)

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """The same connection with TLS, not blocking, its handshake still to be done. Raises OSError
        where the client has gone already; the connection is closed then."""
        self._renew()
        sock.setblocking(False)
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _renew(self) -> None:
        """Certificate and key are rarely replaced in one moment: the old pair serves until the new one fits."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._context = ssl_context(self._cfg)
        except OSError as error:
            log.warning("certificate_not_renewed", reason=str(error))
        else:
            log.info("certificate_renewed")

    def _look(self) -> list[tuple[int, int] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def say_goodbye(sock: socket.socket) -> None:
    """Send TLS's own end of data: a bare TCP one looks like a cut answer. Nothing without TLS."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            sock.unwrap()


def is_plain_http(error: OSError) -> bool:
    """Whether the client did not know that this port speaks TLS."""
    return isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST"


def send_below(sock: socket.socket, data: bytes) -> None:
    """Send bytes past the TLS layer, for a client that speaks none."""
    with suppress(OSError):
        socket.socket.send(sock, data)
