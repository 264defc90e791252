"""What a choice among many servers needs to know of a call at one of them, whichever way it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...connection.exchange import AnswerSource
from ..server_entry import ServerEntry


class HeldAnswer(AnswerSource, Protocol):
    """An answer that tells when its caller leaves it."""

    on_close: Callable[[], None] | None


class Attempt(Protocol):
    """One call at one server. ``cut`` and ``heard_s`` are for any thread, at any time."""

    @property
    def was_cut(self) -> bool: ...

    @property
    def advised_s(self) -> float | None:
        """The pause that the server advised where it refused."""

    @property
    def heard_s(self) -> float:
        """When anything came last, on ``time.monotonic()``."""

    @property
    def has_reached(self) -> bool:
        """Whether the server may have begun with it."""

    @property
    def told_load(self) -> str | None:
        """What the server said of its places."""

    def answer(self, is_whole: bool) -> HeldAnswer:
        """An answer of status 200: whole, or with its first event. Raises ``ClientError``."""

    def cut(self) -> None:
        """Break it off: its server is not believed to answer any more."""

    def close(self) -> None:
        """Leave it; harmless when repeated."""


# Makes the attempt at a server, which may take so many seconds.
AttemptAt = Callable[[ServerEntry, float], Attempt]


class Way(Protocol):
    """How calls get to servers. Any number of threads may use it."""

    @property
    def ports(self) -> str:
        """What it needs a server to have, for people."""

    def can_reach(self, entry: ServerEntry) -> bool:
        """Whether the server has a port for it."""

    def attempts(self, path: str, body: dict[str, Any] | None) -> AttemptAt:
        """The attempts of one call. Raises ``SetupError`` for what cannot be sent this way."""

    def is_alive(self, entry: ServerEntry) -> bool:
        """Whether the server says anything at all."""

    def keep(self, entries: Sequence[ServerEntry]) -> None:
        """Let go of what is held for other servers; calls that run there go on."""

    def close(self) -> None:
        """Let go of all."""
