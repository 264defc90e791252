"""Grammars that are kept for the next request with the same schema and key: a few, the latest used. Any thread.

What leaves the cache ends with the last sequence that follows it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from app.models.grammars.running_grammar import Grammar

MAX_GRAMMARS = 32
MAX_BYTES = 256 << 20

GrammarKey = tuple[str, bytes]
"""Whose it is, and a hash of what was compiled."""


class GrammarCache:
    """The grammars of one model, within bounds of number and memory."""

    def __init__(self, max_grammars: int = MAX_GRAMMARS, max_bytes: int = MAX_BYTES):
        self._max_grammars = max_grammars
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._grammars: OrderedDict[GrammarKey, Grammar] = OrderedDict()

    def get(self, place: GrammarKey) -> Grammar | None:
        """The grammar of that place, now the latest used; None where there is none that still runs."""
        with self._lock:
            grammar = self._grammars.get(place)
            if grammar is None:
                return None
            if not grammar.is_running:
                del self._grammars[place]
                return None
            self._grammars.move_to_end(place)
            return grammar

    def put(self, place: GrammarKey, grammar: Grammar) -> None:
        """Keep ``grammar``, and let go of the oldest ones for which there is no room."""
        with self._lock:
            self._grammars[place] = grammar
            sizes = {key: one.num_bytes for key, one in self._grammars.items()}
            while len(self._grammars) > 1 and (
                len(self._grammars) > self._max_grammars or sum(sizes.values()) > self._max_bytes
            ):
                oldest, _ = self._grammars.popitem(last=False)
                del sizes[oldest]

    def clear(self) -> None:
        with self._lock:
            self._grammars.clear()

    def __len__(self) -> int:
        return len(self._grammars)
