"""Gives the KV cache's memory back after a peak: never per token, and never while it may be wanted again.

Buffers double as sequences grow and would stay large for ever. Once a whole period has passed in
which half of them would have done, they shrink to what was needed; so one period costs one copy at
most, however the load swings. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.engine.kv.cache import INITIAL_CAPACITY_TOKENS, KVCache, grown_capacity
from app.engine.kv.rows import RowTable

# Long, since what is cut off may be a conversation that goes on: its prefix would be computed again.
PERIOD_S = 300.0


class Trimmer:
    """Looks at ``cache`` once per period; ``give_back`` hands what it freed to the device."""

    def __init__(self, cache: KVCache, rows: RowTable[Any], give_back: Callable[[], None]):
        self._cache = cache
        self._rows = rows
        self._give_back = give_back
        self._looked_s: float | None = None

    def look(self, now_s: float) -> None:
        """Shrink the buffers where the last whole period did not need them; harmless when called often."""
        if self._looked_s is None:
            self._looked_s = now_s
        if now_s - self._looked_s < PERIOD_S:
            return
        self._looked_s = now_s
        capacity = fitting(self._rows.take_peak(), self._cache.max_tokens)
        if 2 * capacity <= self._cache.capacity:
            self._rows.forget_beyond(capacity)
            self._cache.shrink(capacity)
            self._give_back()

    def next_look_s(self, now_s: float) -> float | None:
        """Seconds until ``look`` may find something; None where the buffers are as small as they get."""
        if self._looked_s is None or self._cache.capacity <= fitting(0, self._cache.max_tokens):
            return None
        return max(self._looked_s + PERIOD_S - now_s, 0.0)


def fitting(num_tokens: int, max_tokens: int) -> int:
    """The capacity that growing from the start would give ``num_tokens``."""
    return grown_capacity(INITIAL_CAPACITY_TOKENS, min(num_tokens, max_tokens), max_tokens)
