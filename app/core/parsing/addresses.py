"""The forms of BIND, as people write them, in the form that Gunicorn takes. Pure but for names of hosts.

Knows no listening sockets: whether an address is free is asked at the start, by ``app.serve.connections.listening``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading

DEFAULT_PORT = 5000
LAST_PORT = 65_535
# A resolver that answers nobody must not hold up the start; the network's own limit is 5 s and more.
RESOLVE_LIMIT_S = 1.5
# Of ``sockaddr_un`` on Linux, one byte of which ends the path.
MAX_UNIX_PATH_BYTES = 107
_SCHEME = re.compile(r"[a-z]+://", re.IGNORECASE)


def parse_addresses(text: str) -> tuple[str, ...]:
    """Each address of a comma-separated list as ``host:port``, ``[v6]:port``, ``unix:path`` or ``fd://n``.

    Raises ``ValueError`` with one line for what cannot be listened on.
    """
    addresses = tuple(_parse(part.strip()) for part in text.split(","))
    for address in addresses:
        if addresses.count(address) > 1 and not address.endswith(":0"):
            raise ValueError(f"{address} is named twice")
    return addresses


def parse_grpc_address(text: str) -> str:
    """The one address of the gRPC port as ``host:port`` or ``[v6]:port``. Raises ``ValueError`` with one line."""
    addresses = parse_addresses(text)
    if len(addresses) > 1 or not is_tcp(addresses[0]):
        raise ValueError(f"{text} is not one host:port, such as 127.0.0.1:50051")
    if not text.strip().endswith(f":{split_host_port(addresses[0])[1]}") or split_host_port(addresses[0])[1] == 0:
        raise ValueError(f"{text} names no port, which all workers would share; such as 127.0.0.1:50051")
    return addresses[0]


def split_host_port(address: str) -> tuple[str, int]:
    """Host, without brackets, and port of an address that ``parse_addresses`` made and that is of TCP."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_tcp(address: str) -> bool:
    """Whether an address that ``parse_addresses`` made is a host and a port."""
    return not address.startswith(("unix:", "fd://"))


def _parse(text: str) -> str:
    if not text:
        raise ValueError("an address is empty; write host:port, such as 127.0.0.1:5000")
    if text.startswith("unix:"):
        return _unix(text)
    if text.startswith("fd://"):
        if not text[5:].isdecimal():
            raise ValueError(f"{text} is not the number of an open file")
        return text
    if _SCHEME.match(text):
        raise ValueError(f"{text} is a URL; write the address alone, such as {_without_scheme(text)}")
    host, port = _host_and_port(text)
    _require_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unix(text: str) -> str:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path:
        raise ValueError("unix: needs the path of a socket, such as unix:/run/forklift.sock")
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"the path of a socket has at most {MAX_UNIX_PATH_BYTES} bytes, {path[:40]}... has more")
    return f"unix:{path}"


def _without_scheme(text: str) -> str:
    return _SCHEME.sub("", text).split("/")[0] or "127.0.0.1:5000"


def _host_and_port(text: str) -> tuple[str, int]:
    """``[::1]``, ``::1``, ``host`` and each with a port; a host that is left out is every IPv4 address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text} is not [address]:port")
        return host, _port(rest[1:], text)
    if _is_v6(text):
        return text, DEFAULT_PORT
    if text.isdecimal():
        raise ValueError(f"{text} is a port without an address; write 127.0.0.1:PORT, or 0.0.0.0:PORT for all")
    host, _, port = text.partition(":")
    return host or "0.0.0.0", _port(port, text)


def _port(port: str, text: str) -> int:
    if not port:
        return DEFAULT_PORT
    if not port.isdecimal() or not port.isascii() or int(port[:9]) > LAST_PORT:
        raise ValueError(f"{port} in {text} is no port; ports are numbers from 0 to {LAST_PORT}")
    return int(port)


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _require_host(host: str) -> None:
    """Raise ``ValueError`` unless ``host`` is an address or a name that is known here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host.lower() != "localhost" and not _is_known(host):
            raise ValueError(
                f"{host!r} is neither an address nor a name that is known here; write 127.0.0.1 or 0.0.0.0"
            ) from None


def _is_known(host: str) -> bool:
    found: list[object] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(RESOLVE_LIMIT_S)
    return bool(found)
