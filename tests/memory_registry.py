"""Registries in memory: a tree as ZooKeeper has it, and a list of servers that a test changes."""

from __future__ import annotations

from app.client.discovery.zookeeper_link import RegistryAwayError


class MemoryTree:
    """What all sessions see; counts what is written."""

    def __init__(self):
        self.nodes: dict[str, tuple[bytes, object]] = {}
        self.num_made = self.num_writes = 0

    def expire(self, session):
        """ZooKeeper gives a session up."""
        self.nodes = {path: one for path, one in self.nodes.items() if one[1] is not session}


class MemoryLink:
    """A session on a tree, with the methods of ``ZooKeeperLink``; watches are kept, and fired by the test."""

    def __init__(self, tree):
        self.tree, self.session = tree, object()
        self.is_connected, self.loses_next_answer, self.is_closed = True, False, False
        self.watches = []

    def children(self, path, watch=None):
        self._require()
        found = [name.removeprefix(f"{path}/") for name in self.tree.nodes if name.startswith(f"{path}/")]
        return found if path in self.tree.nodes or found else None

    def exists(self, path, watch=None):
        self._require()
        self.watches.append(watch)
        return path in self.tree.nodes

    def make_path(self, path):
        self._write()
        self.tree.nodes.setdefault(path, (b"", None))

    def make_ephemeral(self, prefix, data):
        self._require()
        self.tree.num_made += 1
        path = f"{prefix}{self.tree.num_made:010d}"
        self.tree.nodes[path] = (data, self.session)
        self._write()
        return path

    def set(self, path, data):
        self._write()
        if path not in self.tree.nodes:
            return False
        self.tree.nodes[path] = (data, self.tree.nodes[path][1])
        return True

    def delete(self, path):
        self._write()
        self.tree.nodes.pop(path, None)

    def close(self):
        self.is_closed = True
        self.tree.expire(self.session)

    def _write(self):
        self._require()
        self.tree.num_writes += 1
        if self.loses_next_answer:
            self.loses_next_answer = False
            raise RegistryAwayError("the answer was lost")

    def _require(self):
        if not self.is_connected:
            raise RegistryAwayError("there is no connection")


class MemoryList:
    """A ``ServerList`` that tells what the test says."""

    def __init__(self, *entries):
        self.entries, self.is_connected, self.is_closed = entries, True, False
        self._on_servers = None

    def follow(self, on_servers):
        self._on_servers = on_servers
        self.tell(*self.entries)

    def tell(self, *entries):
        self.entries = entries
        self._on_servers(entries)

    def close(self):
        self.is_closed = True
