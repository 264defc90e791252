"""Deadlines of many connections that all get the same time. Main thread of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class DeadlineQueue(Generic[Item]):
    """Items in the order of their deadlines, which is the order of their arrival."""

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._deadlines: dict[Item, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._deadlines))

    def __contains__(self, item: Item) -> bool:
        return item in self._deadlines

    def add(self, item: Item, now_s: float) -> None:
        self._deadlines[item] = now_s + self._timeout_s

    def discard(self, item: Item) -> None:
        self._deadlines.pop(item, None)

    def next_s(self) -> float:
        """The earliest deadline; infinity when there is none."""
        return next(iter(self._deadlines.values()), float("inf"))

    def take_expired(self, now_s: float) -> list[Item]:
        """Remove and return the items whose time is up."""
        expired = []
        for item, deadline_s in self._deadlines.items():
            if deadline_s > now_s:
                break
            expired.append(item)
        for item in expired:
            del self._deadlines[item]
        return expired
