"""One row of the KV cache: who has it, and what it still holds. Inference thread; knows no torch."""

from __future__ import annotations

from typing import Generic, NamedTuple

from app.engine.generation.plan import AnySequence
from app.engine.kv.snapshots import Kept


class Row(Generic[AnySequence]):
    """One row: who has it, the tokens whose entries it holds after its owner left, and how many were ever written
    since it was begun from the front.

    ``states`` are what is kept of its states, and ``wished`` behind how many tokens they are to be.
    """

    def __init__(self) -> None:
        self.sequence: AnySequence | None = None
        self.kept: list[int] = []
        self.num_written = 0
        self.owner = b""
        self.last_used = 0
        self.states = Kept()
        self.wished: list[int] = []

    @property
    def tokens(self) -> list[int]:
        """Tokens whose entries are valid."""
        return self.kept if self.sequence is None else self.sequence.tokens[: self.sequence.num_cached]

    @property
    def num_in_states(self) -> int:
        """Behind how many tokens its states are as they lie in it."""
        return self.states.num_tokens if self.sequence is None else self.sequence.num_cached

    def note_written(self) -> None:
        """Take over how far its sequence has come."""
        if self.sequence is not None:
            self.num_written = max(self.num_written, self.sequence.num_cached)


class Place(NamedTuple):
    """A row to be taken, and the one whose first ``num_shared`` entries it will have: itself, or another.

    ``num_common``: the most that any row has of the prompt, be it of use or not.
    """

    row: int
    donor: int
    num_shared: int
    num_common: int
