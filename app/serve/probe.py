"""``python -m app.serve.probe``: is the server that this environment describes ready? For HEALTHCHECK.

Reads the same settings as the server, asks its ``/readyz`` over loopback and prints one line. Exit
codes: 0 ready, 1 not ready or not there, 3 settings that no server could start with.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException

from gunicorn.util import parse_address

from app.core.errors import SettingsError
from app.core.settings import Settings, load_settings

TIMEOUT_S = 4.0
NOT_READY = 1
BAD_SETTINGS = 3
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def main() -> int:
    """Ask once. Returns the exit code."""
    try:
        settings = load_settings()
    except SettingsError as error:
        print(f"forklift: {error}", file=sys.stderr)
        return BAD_SETTINGS
    try:
        status, state = ask(settings)
    except (OSError, HTTPException, ValueError) as error:
        print(f"no answer from {settings.bind}: {error}")
        return NOT_READY
    print(state)
    return 0 if status == 200 else NOT_READY


def ask(settings: Settings) -> tuple[int, str]:
    """Status of ``/readyz`` and the state that it tells. Raises OSError, HTTPException or ValueError."""
    connection = HTTPConnection("localhost", timeout=TIMEOUT_S)
    with closing(connection):
        connection.sock = connect(settings)
        connection.request("GET", "/readyz", headers={"Host": own_host(settings)})
        response = connection.getresponse()
        return response.status, str(json.loads(response.read())["state"])


def own_host(settings: Settings) -> str:
    """A name that the server answers to."""
    return next(iter(settings.allowed_hosts), "localhost").replace("*", "probe")


def connect(settings: Settings) -> socket.socket:
    """A connection to the server's first address, with TLS where it has it."""
    address = parse_address(settings.addresses[0])
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT_S)
        sock.connect(address)
    else:
        host, port = address
        sock = socket.create_connection((_LOOPBACK.get(host, host), port), TIMEOUT_S)
    return _wrap(sock) if settings.has_tls else sock


def _wrap(sock: socket.socket) -> ssl.SSLSocket:
    """The certificate names the public host and not the loopback, and nothing secret is asked or sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


if __name__ == "__main__":
    sys.exit(main())
