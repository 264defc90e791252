"""Can this server listen where it is told to? Asked by the master before it starts anything.

Gunicorn would find out by itself, after five tries and eleven lines of log that name no setting.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from app.core.errors import SettingsError
from app.core.parsing.addresses import LAST_PORT

# A server that was just told to stop may hold its port for a moment.
PATIENCE_S = 0.3
PAUSE_S = 0.1
CONNECT_LIMIT_S = 0.5

Address = tuple[str, int] | str | int


def check_addresses(addresses: Iterable[Address], setting: str = "BIND") -> None:
    """Raise ``SettingsError`` with one line that names the ``setting`` for the first of Gunicorn's ``addresses`` that
    cannot be listened on.

    Nothing is asked where sockets are handed over: by systemd, or by number.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) or "GUNICORN_FD" in os.environ:
        return
    for address in addresses:
        if isinstance(address, tuple):
            _check_tcp(*address, setting)
        elif isinstance(address, str):
            _check_unix(Path(address), setting)


def _check_tcp(host: str, port: int, setting: str) -> None:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    end_s = time.monotonic() + PATIENCE_S
    while (error := _bind_error(host, port)) is not None:
        if error.errno != errno.EADDRINUSE:
            raise SettingsError(f"FORKLIFT_{setting}: cannot listen on {shown}: {_why(error, host, port)}")
        if time.monotonic() >= end_s:
            other = f"{host}:{port + 1 if port < LAST_PORT else port - 1}"
            raise SettingsError(
                f"FORKLIFT_{setting}: {shown} is in use by another program: stop it, or choose another port, "
                f"such as {other}"
            )
        time.sleep(PAUSE_S)


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
    except OSError as error:
        return error
    return None


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine"
    if error.errno == errno.EACCES:
        return f"port {port} is for root only; choose one from 1024 on"
    return error.strerror or str(error)


def _check_unix(path: Path, setting: str) -> None:
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        why = "may not be written by this user" if folder.is_dir() else "is no folder"
        raise SettingsError(f"FORKLIFT_{setting}: cannot make the socket {path}: {folder} {why}")
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise SettingsError(f"FORKLIFT_{setting}: {path} is there and is no socket; choose another path")
    if _answers(path):
        raise SettingsError(f"FORKLIFT_{setting}: {path} is in use by another program: stop it, or choose another path")


def _answers(path: Path) -> bool:
    """Whether somebody accepts there; a server that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(CONNECT_LIMIT_S)
        return sock.connect_ex(str(path)) == 0
