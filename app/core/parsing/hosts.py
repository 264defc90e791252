"""Names that a server answers to. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

# `localhost` and what is below it, and every address of the loopback network.
LOOPBACK = "loopback"
ANY = "*"


def default_hosts(addresses: Sequence[str]) -> tuple[str, ...]:
    """The names of a server that listens on these and was given none: loopback's own for loopback, else all."""
    return (LOOPBACK,) if all(is_loopback(_without_port(address)) for address in addresses) else ()


def is_allowed_host(host: str, allowed: Sequence[str]) -> bool:
    """Whether a ``Host`` as it was sent is one of ``allowed``: names, ``*.name`` for what is below one, ``*``."""
    name = _without_port(host)
    return any(_matches(name, one.lower()) for one in allowed)


def is_loopback(name: str) -> bool:
    """Whether the name or address means this machine and nothing else."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def is_address(host: str) -> bool:
    """Whether a ``Host`` as it was sent is an IP address, which no name that was bound anew can be."""
    return _address(_without_port(host)) is not None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    is_bracketed = name.startswith("[") and name.endswith("]")
    try:
        return ipaddress.ip_address(name[1:-1] if is_bracketed else name)
    except ValueError:
        return None


def _matches(name: str, allowed: str) -> bool:
    if allowed == LOOPBACK:
        return is_loopback(name)
    if allowed.startswith("*."):
        return name.endswith(allowed[1:])
    return allowed in (ANY, name)


def _without_port(host: str) -> str:
    """The name in lower case, without a port and the dot of the root."""
    name, colon, port = host.strip().lower().rpartition(":")
    is_with_port = bool(colon) and port.isdecimal() and (name.endswith("]") or ":" not in name)
    return (name if is_with_port else host.strip().lower()).rstrip(".")
