"""Whether servers that owe an answer still live: a thread asks, and cuts the calls of those that do not.

A process that is stopped, or a machine that is gone, closes no connection: a call there would wait to its own end.
``/livez`` and gRPC's health service answer whatever the model does, so a server that is silent there is given up, and
its calls are free to go elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from .attempts.attempt import Attempt
from .server_entry import ServerEntry

# So long nothing may come before anybody wonders; a stream tells every ten seconds that it waits.
PATIENCE_S = 5.0
PERIOD_S = 1.0
# One that is late may have been a moment without a processor.
MOST_MISSES = 2


@dataclass(frozen=True, eq=False)
class _Call:
    entry: ServerEntry
    attempt: Attempt


class ServerProbes:
    """Any number of threads may have their calls watched. ``is_alive`` waits a few seconds for a server at most."""

    def __init__(self, is_alive: Callable[[ServerEntry], bool]) -> None:
        self._is_alive = is_alive
        # Streams that nobody reads are dropped by the garbage collector, on any thread at any moment.
        self._lock = threading.RLock()
        self._calls: set[_Call] = set()
        self._misses: dict[str, int] = {}
        self._probed: set[str] = set()
        self._doubted: frozenset[str] = frozenset()
        self._runs = False
        # Never set: a pause.
        self._tick = threading.Event()

    def watch(self, entry: ServerEntry, attempt: Attempt) -> Callable[[], None]:
        """From now on the call may be cut; what is returned ends that."""
        call = _Call(entry, attempt)
        with self._lock:
            self._calls.add(call)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="forklift-probes", daemon=True).start()
        return lambda: self._forget(call)

    def _forget(self, call: _Call) -> None:
        with self._lock:
            self._calls.discard(call)

    def doubt(self, ids: Collection[str]) -> None:
        """Of these the registry says that they are gone or broken: they are asked at once."""
        self._doubted = frozenset(ids)

    def _run(self) -> None:
        while True:
            self._tick.wait(PERIOD_S)
            with self._lock:
                if not self._calls:
                    self._runs = False
                    self._misses.clear()
                    return
                due = self._due(time.monotonic())
                self._probed |= set(due)
            for entry in due.values():
                threading.Thread(target=self._probe, args=(entry,), name="forklift-probe", daemon=True).start()

    def _due(self, now_s: float) -> dict[str, ServerEntry]:
        """One entry for each server that is to be asked now."""
        late = (c for c in list(self._calls) if now_s - c.attempt.heard_s > PATIENCE_S or c.entry.id in self._doubted)
        return {call.entry.id: call.entry for call in late if call.entry.id not in self._probed}

    def _probe(self, entry: ServerEntry) -> None:
        lives = self._is_alive(entry)
        with self._lock:
            self._probed.discard(entry.id)
            self._misses[entry.id] = 0 if lives else self._misses.get(entry.id, 0) + 1
            is_lost = self._misses[entry.id] >= MOST_MISSES
            cut = [call for call in list(self._calls) if is_lost and call.entry.id == entry.id]
        for call in cut:
            call.attempt.cut()
