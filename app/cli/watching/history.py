"""Snapshots of the last minute: rates and quantiles between them."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from app.cli.watching.snapshot import Snapshot, quantile

WINDOW_S = 60.0
# Tokens are counted when their request ends: a rate over less would jump.
RATE_WINDOW_S = 10.0


class History:
    """``failure`` says why the last look brought nothing; the older ones stay to be shown."""

    def __init__(self) -> None:
        self.failure: str | None = None
        # Of all looks: behind a proxy each may be at another replica.
        self.instances: frozenset[str] = frozenset()
        self._kept: deque[Snapshot] = deque()

    def add(self, snapshot: Snapshot) -> None:
        self.failure = None
        self.instances |= snapshot.instances
        if self._kept and snapshot.total("requests_total") < self._kept[-1].total("requests_total"):
            # Counters went back: another server.
            self._kept.clear()
        self._kept.append(snapshot)
        while snapshot.at_s - self._kept[0].at_s > WINDOW_S:
            self._kept.popleft()

    @property
    def last(self) -> Snapshot | None:
        return self._kept[-1] if self._kept else None

    def rate(self, name: str) -> float | None:
        """A counter's increase per second over the last moments; None before a second look."""
        pair = self._recent()
        return None if pair is None else max(0.0, pair[1].total(name) - pair[0].total(name)) / _seconds(*pair)

    def rates_by(self, name: str, label: str) -> dict[str, float]:
        """The same for each value of a label."""
        pair = self._recent()
        if pair is None:
            return {}
        before, now = (one.by(name, label) for one in pair)
        return {value: max(0.0, count - before.get(value, 0.0)) / _seconds(*pair) for value, count in now.items()}

    def _recent(self) -> tuple[Snapshot, Snapshot] | None:
        """The first and the last of the last moments; None before a second look."""
        last = self.last
        if last is None or len(self._kept) < 2 or not last.values:
            return None
        recent = [one for one in self._kept if last.at_s - one.at_s <= RATE_WINDOW_S]
        return (recent[0] if len(recent) > 1 else self._kept[-2]), last

    def rates(self, name: str) -> list[float]:
        """The increase per second between each two looks, for a small curve."""
        pairs = pairwise(self._kept)
        return [max(0.0, b.total(name) - a.total(name)) / max(b.at_s - a.at_s, 1e-9) for a, b in pairs]

    def quantile(self, name: str, share: float) -> float | None:
        """Of what was observed within the window; of everything where that is nothing."""
        if self.last is None:
            return None
        now, then = self.last.buckets(name), self._kept[0].buckets(name)
        found = quantile({bound: count - then.get(bound, 0.0) for bound, count in now.items()}, share)
        return quantile(now, share) if found is None else found


def _seconds(first: Snapshot, last: Snapshot) -> float:
    return max(last.at_s - first.at_s, 1e-9)
