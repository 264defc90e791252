"""Where a client learns which servers there are: one interface, and the list that never changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..connection.grpc_address import is_grpc
from .registry_address import ListAddress
from .server_entry import ServerEntry

# Of one worker with default settings; each answer tells how many there are.
PLACES_UNTIL_TOLD = 11
# Is told all servers, whenever anything about them changed; called on any thread, one call at a time.
OnServers = Callable[[tuple[ServerEntry, ...]], None]


class ServerList(Protocol):
    """A registry as its readers see it. Another registry is a class like this and a line in ``opening.py``."""

    @property
    def is_connected(self) -> bool:
        """Whether what was told last is known to be as it is."""

    def follow(self, on_servers: OnServers) -> None:
        """Begin to tell; called once."""

    def close(self) -> None:
        """Tell nothing more."""


class StaticList:
    """Addresses that were given; what the servers can do is not known."""

    is_connected = True

    def __init__(self, address: ListAddress):
        self._entries = tuple(_entry(f"listed-{number}", url) for number, url in enumerate(address.urls))

    def follow(self, on_servers: OnServers) -> None:
        on_servers(self._entries)

    def close(self) -> None:
        return None


def _entry(name: str, url: str) -> ServerEntry:
    grpc = url.partition("://")[2] if is_grpc(url) else None
    return ServerEntry(name, url, places=PLACES_UNTIL_TOLD, grpc=grpc)
