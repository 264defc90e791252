"""Who compiles next: a few at a time, and callers take turns, so that one's grammars never starve another's."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 0.25


class CompileQueue:
    """At most ``num_places`` at once; scopes that wait are served in rotation. Any thread."""

    def __init__(self, num_places: int):
        self._num_free = num_places
        self._news = threading.Condition()
        self._waiting: OrderedDict[str, deque[object]] = OrderedDict()

    @contextmanager
    def taken(self, scope: str, patience: Callable[[], None]) -> Iterator[None]:
        """A place, waited for as long as ``patience`` does not raise."""
        ticket = object()
        with self._news:
            self._waiting.setdefault(scope, deque()).append(ticket)
        try:
            while not self._took(ticket, scope):
                patience()
            try:
                yield
            finally:
                with self._news:
                    self._num_free += 1
                    self._news.notify_all()
        finally:
            self._leave(ticket, scope)

    def _took(self, ticket: object, scope: str) -> bool:
        """Whether it is the ticket's turn now, or becomes so within ``LOOK_S``."""
        with self._news:
            if not self._news.wait_for(lambda: self._is_next(ticket), LOOK_S):
                return False
            self._num_free -= 1
            self._waiting[scope].popleft()
            self._waiting.move_to_end(scope)
            self._news.notify_all()
            return True

    def _is_next(self, ticket: object) -> bool:
        first = next((tickets[0] for tickets in self._waiting.values() if tickets), None)
        return self._num_free > 0 and first is ticket

    def _leave(self, ticket: object, scope: str) -> None:
        with self._news:
            tickets = self._waiting.get(scope)
            if tickets is not None and ticket in tickets:
                tickets.remove(ticket)
            if not tickets:
                self._waiting.pop(scope, None)
            self._news.notify_all()
