"""A server's node in ZooKeeper: ephemeral, written when something changed, made again when it is gone.

A session that ZooKeeper gave up takes its node along, and nothing brings it back by itself; a ``create`` whose answer
was lost may have made one all the same. So the node is named by the server, and what else bears that name is removed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from app.client.discovery.registry_address import ZooKeeperAddress
from app.client.discovery.server_entry import ServerEntry, entry_bytes
from app.client.discovery.zookeeper_link import RegistryAwayError, ZooKeeperLink
from app.client.discovery.zookeeper_list import SERVERS


class ZooKeeperNode:
    """Implements ``Registry``."""

    def __init__(self, address: ZooKeeperAddress, server_id: str, link: ZooKeeperLink | None = None):
        self._folder = address.path + SERVERS
        self._prefix = f"s-{server_id}-"
        self._node: str | None = None
        self._session: object = None
        self._written: bytes | None = None
        self._has_event = False
        self._link = link or ZooKeeperLink(address)

    @property
    def is_connected(self) -> bool:
        return self._link.is_connected

    def announce(self, entry: ServerEntry) -> int:
        data = entry_bytes(entry)
        if self._node is None or self._link.session != self._session or self._is_gone():
            return self._make(data)
        if data == self._written:
            return 0
        node = self._node
        # What of it arrives is not known if this fails.
        self._written = None
        if not self._link.set(node, data):
            return self._make(data)
        self._written = data
        return 1

    def withdraw(self) -> int:
        node, self._node = self._node, None
        if node is None or self._link.session != self._session:
            return 0
        self._link.delete(node)
        return 1

    def close(self) -> None:
        with suppress(RegistryAwayError):
            self.withdraw()
        self._link.close()

    def _make(self, data: bytes) -> int:
        self._node = None
        session = self._link.session
        names = self._link.children(self._folder)
        if names is None:
            self._link.make_path(self._folder)
        node = self._link.make_ephemeral(f"{self._folder}/{self._prefix}", data)
        others = [name for name in names or [] if name.startswith(self._prefix)]
        for name in others:
            self._link.delete(f"{self._folder}/{name}")
        self._node, self._session, self._written, self._has_event = node, session, data, True
        return 1 + len(others)

    def _is_gone(self) -> bool:
        """Whether somebody removed the node; asked only where ZooKeeper said that something became of it."""
        if not self._has_event or self._node is None:
            return False
        self._has_event = False
        return not self._link.exists(self._node, self._on_event)

    def _on_event(self, _event: Any) -> None:
        """On kazoo's thread."""
        self._has_event = True
