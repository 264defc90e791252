"""The servers that stand in ZooKeeper, followed by watches on a thread of its own.

A watch fires once, and none outlives a lost connection: after any event this thread looks again at the names and at
each node that changed, after a lost connection at all of them. What it knows stays while ZooKeeper is away.
"""

from __future__ import annotations

import logging
import random
import threading
from contextlib import suppress
from typing import Any

from .registry_address import ZooKeeperAddress
from .server_entry import ForeignEntryError, ServerEntry, entry_of
from .server_lists import OnServers
from .zookeeper_link import RegistryAwayError, ZooKeeperLink

SERVERS = "/servers"
MOST_SERVERS = 5000
# A watch that was lost in spite of all is made up for.
LOOK_ANYWAY_S = 60.0
AGAIN_S = 1.0
# Many clients do not read everything at the same moment when ZooKeeper is back.
SPREAD_S = 0.5

logger = logging.getLogger("forklift.client")


class ZooKeeperList:
    """``PATH/servers/s-ID-NUMBER``: one ephemeral node per server."""

    def __init__(self, address: ZooKeeperAddress):
        self._folder = address.path + SERVERS
        self._wake, self._is_closed = threading.Event(), False
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._has_lost_watches = True
        # None: it stands there and is no entry.
        self._known: dict[str, ServerEntry | None] = {}
        self._told: tuple[ServerEntry, ...] | None = None
        self._link = ZooKeeperLink(address, self._on_connection)

    @property
    def is_connected(self) -> bool:
        return self._link.is_connected

    def follow(self, on_servers: OnServers) -> None:
        threading.Thread(target=self._run, args=(on_servers,), name="forklift-registry", daemon=True).start()

    def close(self) -> None:
        self._is_closed = True
        self._wake.set()
        threading.Thread(target=self._link.close, daemon=True).start()

    def _run(self, on_servers: OnServers) -> None:
        pause_s = 0.0
        while not self._is_closed:
            self._wake.wait(pause_s)
            self._wake.clear()
            try:
                self._look()
                pause_s = LOOK_ANYWAY_S
            except RegistryAwayError:
                pause_s = AGAIN_S
                continue
            entries = tuple(one for one in self._by_id().values())
            if entries != self._told and not self._is_closed:
                self._told = entries
                on_servers(entries)

    def _look(self) -> None:
        """Read what may have changed. Raises ``RegistryAwayError``."""
        with self._lock:
            changed, self._changed = self._changed, set()
            is_anew, self._has_lost_watches = self._has_lost_watches, False
        try:
            names = self._link.children(self._folder, self._on_event)
            if names is None:
                self._link.exists(self._folder, self._on_event)
            kept = self._bounded(names or [])
            for name in [one for one in kept if is_anew or one in changed or one not in self._known]:
                self._read(name)
            self._known = {name: self._known[name] for name in kept if name in self._known}
        except RegistryAwayError:
            with self._lock:
                self._has_lost_watches = True
            raise

    def _bounded(self, names: list[str]) -> list[str]:
        kept = sorted(name for name in names if name.startswith("s-"))
        if len(kept) > MOST_SERVERS:
            logger.warning("%s holds %d servers, of which the first %d are read", self._folder, len(kept), MOST_SERVERS)
        return kept[:MOST_SERVERS]

    def _read(self, name: str) -> None:
        data = self._link.get(f"{self._folder}/{name}", self._on_event)
        if data is None:
            self._known.pop(name, None)
            return
        try:
            self._known[name] = entry_of(data)
        except ForeignEntryError as failure:
            logger.warning("%s/%s is passed over: %s", self._folder, name[:80], failure)
            self._known[name] = None

    def _by_id(self) -> dict[str, ServerEntry]:
        """One entry per server: where it stands there twice for a moment, the one made last."""
        numbered = sorted(self._known, key=lambda name: name.rpartition("-")[2])
        return {entry.id: entry for name in numbered if (entry := self._known[name]) is not None}

    def _on_event(self, event: Any) -> None:
        with self._lock:
            if event.path is None or event.type == "NONE":
                self._has_lost_watches = True
            else:
                self._changed.add(event.path.rpartition("/")[2])
        self._wake.set()

    def _on_connection(self) -> None:
        """On kazoo's thread."""
        with self._lock:
            self._has_lost_watches = True
        timer = threading.Timer(random.uniform(0.0, SPREAD_S), self._wake.set)
        timer.daemon = True
        with suppress(RuntimeError):
            timer.start()
