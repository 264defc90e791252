"""How much of a play the check at a load has time for: sizes of its requests, and what the brief one leaves out.

Inference thread only; knows neither engines nor models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# A check may take this share of what the rest of the load took, or so many seconds, whichever is more.
SHARE_OF_LOAD, LEAST_BUDGET_S = 0.1, 2.0


@dataclass(frozen=True)
class Play:
    """Prompt tokens of each request, of one step, and new tokens of each request that is played.

    ``num_passes`` is how many passes of the engine and plain ones it takes at most; ``left_out`` says what the full
    play has beyond this one.
    """

    num_long: int
    num_short: int
    num_shared: int
    num_other: int
    chunk_tokens: int
    new_tokens: tuple[int, ...]
    num_passes: int
    left_out: tuple[str, ...] = ()


FULL = Play(24, 10, 16, 3, chunk_tokens=10, new_tokens=(3, 5, 4, 2), num_passes=20)
# It finds every fault of tests/planted.py, too: what is left out is a second look, at most of which the others hold.
BRIEF = Play(
    *(12, 5, 8, 2),
    chunk_tokens=5,
    new_tokens=(2, 3, 4),
    num_passes=13,
    left_out=("long prompts", "a prefix from a busy row", "the same without drafts"),
)


class CheckClock:
    """Tells what a check takes from what the rest of a load takes, which begins with it."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self.check_s = self.last_s = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Counts the block as time that the check takes; ``last_s`` is what it took."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.last_s = time.monotonic() - started_s
            self.check_s += self.last_s

    @property
    def remaining_s(self) -> float:
        """What is left for the check; below 0 where it has taken more than it may."""
        load_s = time.monotonic() - self._began_s - self.check_s
        return max(SHARE_OF_LOAD * load_s, LEAST_BUDGET_S) - self.check_s


def play_within(remaining_s: float, pass_s: float) -> Play:
    """The full play where ``remaining_s`` are enough for it, a pass taking ``pass_s``; else the brief one.

    Nothing is left out of that: a check that found less would be none, however slow the model is.
    """
    return FULL if FULL.num_passes * pass_s <= remaining_s else BRIEF
