"""Which worker accepts the next connection: the one with the least in hand. Main thread of a worker.

Knows rows, not sockets. Gunicorn's thread worker accepts whenever it can, so two long requests can
land on one worker while another GPU idles (gunicorn issue 3433).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.states import WORKER_STATES
from app.serve.board.slot_board import BoardEntry

# Between two looks at the board while another worker should accept.
STEP_S = 0.005
# After this long the other worker is taken to be stuck, and whoever sees the connection takes it.
LIMIT_S = 0.5


def is_my_turn(rows: Sequence[BoardEntry], slot: int | None, now_s: float) -> bool:
    """Whether no other worker is better placed; the caller is inside ``SlotBoard.locked``.

    Ready workers come before those that load or failed, then the smaller load decides. A worker
    without a slot comes last; draining ones, and those that seem to have stopped, do not count.
    """
    others = [_rank(row) for at, row in enumerate(rows) if at != slot and _can_accept(row, now_s)]
    if not others:
        return True
    return slot is not None and _rank(rows[slot]) <= min(others)


@dataclass(slots=True)
class Deferral:
    """How long this worker has left a connection that waits to be accepted to others.

    ``polling_since_s`` is when it last began to look: a client that is seen only a while after that
    has just come, and whoever was there before was taken by another worker.
    """

    since_s: float | None = None
    paused_until_s: float = 0.0
    polling_since_s: float = float("inf")

    def should_accept(
        self, rows: Sequence[BoardEntry], slot: int | None, now_s: float, *, is_stopping: bool, is_full: bool
    ) -> bool:
        """Whether to take a connection that waits; the caller is inside ``SlotBoard.locked``.

        Where every place is taken (``is_full``), whoever is first may refuse; so may one that stops, where all do.
        """
        if not is_stopping:
            return is_my_turn(rows, slot, now_s) or is_full or not self.defer(now_s)
        if has_other_server(rows, slot, now_s):
            self.paused_until_s = now_s + STEP_S
            return False
        return True

    def defer(self, now_s: float) -> bool:
        """Accept nothing for a moment; False when that has gone on for too long."""
        if self.since_s is None or now_s - self.polling_since_s >= STEP_S:
            self.since_s = now_s
        if now_s - self.since_s >= LIMIT_S:
            return False
        self.paused_until_s = now_s + STEP_S
        return True

    def is_paused(self, now_s: float) -> bool:
        return now_s < self.paused_until_s

    def end(self) -> None:
        """Note that no connection waits any more."""
        self.since_s = None


def has_other_server(rows: Sequence[BoardEntry], slot: int | None, now_s: float) -> bool:
    """Whether a connection that this worker leaves alone is served by another."""
    return any(_can_accept(row, now_s) for at, row in enumerate(rows) if at != slot)


def _can_accept(row: BoardEntry, now_s: float) -> bool:
    return row.pid != 0 and WORKER_STATES[row.state] != "draining" and not row.is_silent(now_s)


def _rank(row: BoardEntry) -> tuple[bool, int]:
    return not row.is_ready, row.load
