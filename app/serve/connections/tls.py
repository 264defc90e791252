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

from app.core.logs.logging import get_logger
from app.core.system.certificates import check_pair, no_password

log = get_logger("serve")


class Pair:
    """Certificate and key in use, taken up anew when their files change.

    Made by the master, so that a worker which is born while the files do not fit has the pair of the start.
    """

    def __init__(self, cfg: Any):
        self._cfg = cfg
        self._stamps = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """What connections are wrapped with now."""
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            self._renew()
        return self._context

    def _renew(self) -> None:
        """Certificate and key are rarely replaced in one moment: the old pair serves until the new one fits."""
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:
            log.warning("certificate_not_renewed", reason=str(error))
        else:
            log.info("certificate_renewed")

    def _load(self) -> ssl.SSLContext:
        """Read the files, which may hang nobody: no pipe is opened, and no pass phrase is asked for."""
        cfg = self._cfg
        check_pair(cfg.certfile, cfg.keyfile)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cfg.ca_certs)
        context.load_cert_chain(cfg.certfile, cfg.keyfile, password=no_password)
        context.verify_mode = cfg.cert_reqs
        if cfg.ciphers:
            context.set_ciphers(cfg.ciphers)
        return context

    def _look(self) -> list[tuple[int, int] | None]:
        return [_stamp(Path(path)) for path in (self._cfg.certfile, self._cfg.keyfile)]


_pair: Pair | None = None


def make_context(cfg: Any, _make_default: object = None) -> ssl.SSLContext:
    """Gunicorn's hook ``ssl_context``: the context of this server's pair, which the master makes first."""
    global _pair
    if _pair is None:
        _pair = Pair(cfg)
    return _pair.context()


class TlsWrapper:
    """Wraps accepted connections."""

    def __init__(self, cfg: Any):
        self._cfg = cfg

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """The same connection with TLS, not blocking, its handshake still to be done. Raises OSError
        where the client has gone already; the connection is closed then."""
        context: ssl.SSLContext = ssl_context(self._cfg)
        sock.setblocking(False)
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


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
