"""A registry as the server that announces itself sees it. Another one is a class like this and a line in
``announcing.py``, and for clients one in ``app/client/discovery``.

Called on one thread only, which may wait; each call is bounded in time.
"""

from __future__ import annotations

from typing import Protocol

from app.client.discovery.server_entry import ServerEntry


class Registry(Protocol):
    """Raises ``RegistryAwayError`` wherever it cannot be reached."""

    @property
    def is_connected(self) -> bool:
        """Whether it answers."""

    def announce(self, entry: ServerEntry) -> int:
        """See to it that ``entry`` stands there, as it is now, once; returns how many writes that took, mostly 0."""

    def withdraw(self) -> int:
        """Take the entry out; returns how many writes that took."""

    def close(self) -> None:
        """Take the entry out, and end."""
