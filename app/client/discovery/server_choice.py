"""Which of the known servers is asked: of two drawn by their weights the less loaded one, and none that just failed
while another is there.

What a server has in hand is told in the header ``X-Load`` of each of its answers; between two answers a client counts
its own calls. Any number of threads may use it.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import random
import re
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from .server_entry import ServerEntry

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# An older word on the load is worth less than none.
LOAD_IS_OLD_S = 5.0
# A model that a server said it does not have.
FORGET_MISSING_S = 60.0
FULL = 1.0
# With more servers than these, looking at all of them for each call would cost more than a few draws.
FEW, DRAWS = 16, 8
# Names of models are the callers' to choose.
MOST_POOLS = 256
LOAD = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


@dataclass
class Standing:
    """What this client knows of one server by itself."""

    num_own: int = 0
    num_failures: int = 0
    rest_until_s: float = 0.0
    told: tuple[int, int] | None = None
    told_at_s: float = 0.0
    num_own_when_told: int = 0
    lacks_until_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pool:
    """The ready servers for a model or task, with the sums of their weights."""

    ready: list[ServerEntry]
    cum_weights: list[int]


class ServerChoice:
    """``zone``: servers there are preferred while one of them has room."""

    def __init__(self, zone: str | None = None, draw: random.Random | None = None):
        self._zone = zone
        self._draw = draw or random.Random()
        self._lock = threading.Condition()
        self._entries: tuple[ServerEntry, ...] = ()
        self._standings: dict[str, Standing] = {}
        self._pools: dict[tuple[str | None, str | None], _Pool] = {}

    @property
    def entries(self) -> tuple[ServerEntry, ...]:
        return self._entries

    def take(self, entries: Sequence[ServerEntry]) -> None:
        """What the registry says now. That nobody is there is more likely its fault than that of every server."""
        if not entries:
            return
        with self._lock:
            self._entries = tuple(entries)
            self._pools.clear()
            there = {one.id for one in entries}
            self._standings = {name: one for name, one in self._standings.items() if name in there or one.num_own}
            self._lock.notify_all()

    def wait_for_servers(self, limit_s: float) -> bool:
        """Whether any were told within that time."""
        with self._lock:
            return self._lock.wait_for(lambda: bool(self._entries), limit_s)

    def pick(
        self, model: str | None, task: str | None, without: Collection[str] = (), affinity: str | None = None
    ) -> ServerEntry | None:
        """A server, counted as asked until ``done``; None where none fits. ``without``: ids that are not wanted again.

        Servers that are not ready, or rest after a failure, are asked where no other is left: what is known of them may
        be out of date. With an ``affinity`` the same servers are drawn for the same text.
        """
        with self._lock:
            now_s = time.monotonic()
            if (chosen := self._drawn(model, task, without, affinity, now_s)) is not None:
                self._standing(chosen).num_own += 1
                return chosen
            fits = [e for e in self._entries if e.id not in without and self._fits(e, model, task, now_s)]
            chosen = self._chosen(self._best_group(fits, now_s), affinity, now_s)
            if chosen is not None:
                self._standing(chosen).num_own += 1
            return chosen

    def _drawn(
        self, model: str | None, task: str | None, without: Collection[str], affinity: str | None, now_s: float
    ) -> ServerEntry | None:
        """Of many servers a few draws find two good ones; None where they did not, and all have to be looked at."""
        pool = self._pool(model, task)
        if len(pool.ready) <= FEW or self._zone or affinity is not None:
            return None
        found: list[ServerEntry] = []
        for entry in self._draw.choices(pool.ready, cum_weights=pool.cum_weights, k=DRAWS):
            rests = self._standing(entry).rest_until_s > now_s
            if entry.id in without or rests or entry in found or not self._fits(entry, model, task, now_s):
                continue
            found.append(entry)
            if len(found) == 2:
                break
        return min(found, key=lambda e: self.load(e, now_s)) if found else None

    def _pool(self, model: str | None, task: str | None) -> _Pool:
        """What the list says, looked at once per change of it."""
        if (model, task) not in self._pools:
            if len(self._pools) >= MOST_POOLS:
                self._pools.clear()
            ready = [e for e in self._entries if e.state == "ready" and e.can_take(model, task)]
            self._pools[model, task] = _Pool(ready, list(accumulate(e.weight for e in ready)))
        return self._pools[model, task]

    def done(self, entry: ServerEntry, told_load: str | None = None, has_failed: bool | None = None) -> None:
        """A call ended. ``has_failed`` None: it says nothing about the server's health."""
        with self._lock:
            standing = self._standing(entry)
            standing.num_own -= 1
            now_s = time.monotonic()
            if (told := _load_of(told_load)) is not None:
                standing.told, standing.told_at_s = told, now_s
                standing.num_own_when_told = standing.num_own
            if has_failed:
                pause_s = min(FIRST_PAUSE_S * 2.0 ** min(standing.num_failures, 10), LONGEST_PAUSE_S)
                standing.num_failures += 1
                standing.rest_until_s = now_s + pause_s * self._draw.uniform(0.5, 1.0)
            elif has_failed is not None:
                standing.num_failures, standing.rest_until_s = 0, 0.0

    def note_lacking(self, entry: ServerEntry, model: str) -> None:
        """It says that it does not have this model."""
        with self._lock:
            lacks = self._standing(entry).lacks_until_s
            if len(lacks) > 100:
                lacks.clear()
            lacks[model] = time.monotonic() + FORGET_MISSING_S

    def _standing(self, entry: ServerEntry) -> Standing:
        return self._standings.setdefault(entry.id, Standing())

    def _fits(self, entry: ServerEntry, model: str | None, task: str | None, now_s: float) -> bool:
        lacks = self._standing(entry).lacks_until_s
        return entry.can_take(model, task) and (model is None or lacks.get(model, 0.0) < now_s)

    def _best_group(self, fits: list[ServerEntry], now_s: float) -> list[ServerEntry]:
        ready = [e for e in fits if e.state == "ready"] or fits
        healthy = [e for e in ready if self._standing(e).rest_until_s <= now_s] or ready
        near = [e for e in healthy if e.zone == self._zone and self.load(e, now_s) < FULL] if self._zone else []
        return near or healthy

    def _chosen(self, group: list[ServerEntry], affinity: str | None, now_s: float) -> ServerEntry | None:
        if not group:
            return None
        if affinity is not None:
            # Rendezvous hashing: a server that comes or goes moves only what belongs to it.
            key = _hash(affinity)
            ranked = heapq.nsmallest(2, group, key=lambda e: _rank(key, e))
            return next((e for e in ranked if self.load(e, now_s) < FULL), ranked[0])
        # Drawn without putting back (Efraimidis and Spirakis, 2006).
        two = sorted(group, key=lambda e: self._draw.random() ** (1.0 / e.weight), reverse=True)[:2]
        return min(two, key=lambda e: self.load(e, now_s))

    def load(self, entry: ServerEntry, now_s: float) -> float:
        """Places taken of all its places, as far as is known here."""
        standing = self._standing(entry)
        taken, places = standing.told or (0, entry.places)
        if now_s - standing.told_at_s >= LOAD_IS_OLD_S:
            return standing.num_own / places
        since = standing.num_own - standing.num_own_when_told
        return max(taken + since, standing.num_own) / places


def _load_of(header: str | None) -> tuple[int, int] | None:
    """Places taken, and all places."""
    found = LOAD.fullmatch(header or "")
    return (int(found[1]), max(int(found[2]), 1)) if found else None


def _rank(affinity: int, entry: ServerEntry) -> int:
    """As good as a hash of both, for a fraction of its cost: the constant is that of Fibonacci hashing (Knuth, 6.4)."""
    mixed = ((affinity ^ _hash(entry.id)) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF


@functools.lru_cache(10_000)
def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
