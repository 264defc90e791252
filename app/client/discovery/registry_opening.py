"""Opens the list of servers that a registry's URL means."""

from __future__ import annotations

from ..connection.server_urls import shown_url
from .registry_address import ListAddress, registry_address
from .server_lists import ServerList, StaticList
from .zookeeper_list import ZooKeeperList


def open_list(url: str) -> tuple[str, ServerList]:
    """The URL as it can be shown, and the list. Raises ``SetupError``."""
    address = registry_address(url)
    shown = shown_url(url.strip()).partition("?")[0]
    return shown, StaticList(address) if isinstance(address, ListAddress) else ZooKeeperList(address)
