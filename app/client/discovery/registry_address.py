"""The URLs of registries: ``zookeeper://h1,h2:2181/path``, ``forklift://a:5000,b:5000``, ``grpc://a:50051,b:50051``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from ..client_errors import SetupError
from ..connection.grpc_address import DEFAULT_PORT as GRPC_PORT
from ..connection.grpc_address import SCHEMES as GRPC_SCHEMES
from ..connection.server_urls import checked_url, shown_url

ZOOKEEPER_PORT = 2181
DEFAULT_PATH = "/forklift"
DEFAULT_SESSION_S = 6.0
LEAST_SESSION_S, MOST_SESSION_S = 1.0, 120.0
MOST_HOSTS = 1000
HTTP_PORT = 5000
# The scheme of each server's URL, and the port where none is named.
SCHEMES_OF_LISTS = {
    "forklift": ("http", HTTP_PORT),
    "forklifts": ("https", HTTP_PORT),
    **{scheme: (scheme, GRPC_PORT) for scheme in GRPC_SCHEMES},
}
OPTIONS = ("session_s", "ca", "cert", "key")
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class ZooKeeperAddress:
    """``ca`` makes the connection TLS; ``cert`` and ``key`` are this side's own. A session that is not heard of for
    ``session_s`` is over."""

    hosts: tuple[str, ...]
    path: str = DEFAULT_PATH
    session_s: float = DEFAULT_SESSION_S
    login: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class ListAddress:
    """The URLs themselves."""

    urls: tuple[str, ...]


def registry_address(url: str) -> ZooKeeperAddress | ListAddress:
    """Raise ``SetupError`` with one line for what is no registry's URL."""
    scheme, has_scheme, _ = url.strip().partition("://")
    try:
        if has_scheme and scheme == "zookeeper":
            return _zookeeper(url.strip())
        if has_scheme and scheme in SCHEMES_OF_LISTS:
            return _list(url.strip(), *SCHEMES_OF_LISTS[scheme])
    except ValueError as failure:
        raise SetupError(f"{shown_url(url.strip())!r}: {failure}") from None
    raise SetupError(
        f"{shown_url(url.strip())!r} is not a registry's URL such as zookeeper://host:2181/forklift or "
        "forklift://host:5000,host:5000"
    )


def _zookeeper(url: str) -> ZooKeeperAddress:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := [name for name in options if name not in OPTIONS]:
        raise ValueError(f"unknown option {unknown[0][:40]}; known are {', '.join(OPTIONS)}")
    if ("cert" in options) != ("key" in options) or ("cert" in options and "ca" not in options):
        raise ValueError("cert and key go together, and with ca")
    path = parts.path.rstrip("/") or DEFAULT_PATH
    if not _PATH.fullmatch(path) or parts.fragment:
        raise ValueError("its path is not such as /forklift")
    if login and not all(login.partition(":")[::2]):
        raise ValueError("a login is user:password")
    return ZooKeeperAddress(
        tuple(_host(one, ZOOKEEPER_PORT) for one in _split(hosts)),
        path,
        _session_s(options.get("session_s")),
        unquote(login) or None,
        *(options.get(name) for name in ("ca", "cert", "key")),
    )


def _session_s(given: str | None) -> float:
    if given is None:
        return DEFAULT_SESSION_S
    session_s = float(given) if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", given) else 0.0
    if not LEAST_SESSION_S <= session_s <= MOST_SESSION_S:
        raise ValueError(f"session_s is a number from {LEAST_SESSION_S:g} to {MOST_SESSION_S:g}")
    return session_s


def _list(url: str, scheme: str, port: int) -> ListAddress:
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("a list of servers has no options")
    if parts.path.strip("/") and scheme in GRPC_SCHEMES:
        raise ValueError("gRPC ports have no path")
    hosts = [_host(one, port) for one in dict.fromkeys(_split(parts.netloc))]
    if scheme in GRPC_SCHEMES:
        return ListAddress(tuple(f"{scheme}://{host}" for host in hosts))
    return ListAddress(tuple(checked_url(f"{scheme}://{host}{parts.path}") for host in hosts))


def _split(hosts: str) -> list[str]:
    found = [one.strip() for one in hosts.split(",")]
    if not all(found) or len(found) > MOST_HOSTS:
        raise ValueError("it names no host, or an empty one")
    return found


def _host(text: str, default_port: int) -> str:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found[2] or default_port) < 65_536:
        raise ValueError(f"{text[:60]!r} is not host:port")
    return f"{found[1]}:{found[2] or default_port}"
