"""The addresses by which others reach this server, unless it is told: where it listens, what reaches the registry."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from app.core.parsing.addresses import is_tcp, split_host_port
from app.core.settings import Settings


def own_url(settings: Settings, listening: Iterable[Any], others: Iterable[str]) -> str | None:
    """``listening``: names of open sockets; ``others``: ``host:port`` of the registry. None where there is none."""
    if settings.announce_url:
        return settings.announce_url
    for name in listening:
        if isinstance(name, tuple):
            scheme = "https" if settings.has_tls else "http"
            return f"{scheme}://{_shown(_reachable(name[0], others))}:{name[1]}{settings.path_prefix}"
    return None


def own_grpc(settings: Settings, others: Iterable[str]) -> str | None:
    """``host:port`` of the gRPC port, where there is one that others can reach."""
    if not settings.grpc_bind or not is_tcp(settings.grpc_bind):
        return None
    host, port = split_host_port(settings.grpc_bind)
    return f"{_shown(_reachable(host, others))}:{port}"


def _reachable(host: str, others: Iterable[str]) -> str:
    """``host``, or where that is any address the one that packets to the registry leave by."""
    if not _is_any(host):
        return host
    for other in others:
        with suppress(OSError, ValueError):
            return _outgoing(*split_host_port(other))
    return socket.gethostname()


def _outgoing(host: str, port: int) -> str:
    """No packet is sent: connecting a datagram socket only chooses the route. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.connect(address)
        return str(sock.getsockname()[0])


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
