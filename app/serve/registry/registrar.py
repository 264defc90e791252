"""The thread that keeps a server's entry as the server is. One in each worker; one worker at a time leads.

It looks at the slot board a few times a second, which costs microseconds, and writes when something changed. Serving
never waits for it: while the registry is away it only tries again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from app.client.discovery.server_entry import ServerEntry
from app.client.discovery.zookeeper_link import RegistryAwayError
from app.core.logs.logging import get_logger
from app.serve.context import WorkerContext
from app.serve.registry.announcement import Announcement
from app.serve.registry.registration import Registration
from app.serve.registry.registry_interface import Registry

PERIOD_S = 0.25
# A server that is ready one moment and not the next writes no more often than this; that it is not, it tells at once.
LEAST_BETWEEN_S = 1.0
# What the end of a worker may wait for a registry that does not answer.
LAST_WORDS_S = 1.5
PATIENCE_S = 5.0

log = get_logger("serve")


class Registrar:
    """``open_registry`` connects; it is called on this thread, once this worker leads."""

    def __init__(
        self,
        context: WorkerContext,
        registration: Registration,
        announcement: Announcement,
        open_registry: Callable[[], Registry],
    ):
        self._context, self._registration, self._announcement = context, registration, announcement
        self._open_registry = open_registry
        self._registry: Registry | None = None
        self._told: ServerEntry | None = None
        self._told_at_s = float("-inf")
        self._away_since_s: float | None = None
        self._is_away_in_log = self._is_told_in_log = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take the server out of the registry, if this worker put it there; bounded in time."""
        self._ending.set()
        self._thread.join(LAST_WORDS_S)

    def _run(self) -> None:
        while not self._ending.is_set():
            self.turn(time.monotonic())
            self._ending.wait(PERIOD_S)
        self._resign()

    def turn(self, now_s: float) -> None:
        """One look."""
        if not self._registration.is_mine(self._is_silent):
            self._resign()
            return
        if self._registry is None:
            self._registry = self._open_registry()
        entry = self._announcement.entry(self._context.board.rows(), self._context.inference.handles)
        try:
            self._tell(self._registry, self._due(entry, now_s), now_s)
        except RegistryAwayError as failure:
            self._note_away(now_s, str(failure))
        else:
            self._note_announced()

    def _due(self, entry: ServerEntry, now_s: float) -> ServerEntry:
        """What is to stand there now: what was told last, where it is too early for a change."""
        is_early = now_s - self._told_at_s < LEAST_BETWEEN_S and entry.state == "ready"
        return self._told if is_early and self._told is not None else entry

    def _tell(self, registry: Registry, entry: ServerEntry, now_s: float) -> None:
        num_writes = registry.announce(entry)
        if entry != self._told:
            self._told, self._told_at_s = entry, now_s
        self._registration.count_writes(num_writes)

    def _note_away(self, now_s: float, reason: str) -> None:
        self._registration.note(is_connected=False, is_announced=False)
        self._is_told_in_log = False
        if self._away_since_s is None:
            self._away_since_s = now_s
        # A connection takes a moment to be made, and to be made again.
        if now_s - self._away_since_s >= PATIENCE_S and not self._is_away_in_log:
            self._is_away_in_log = True
            log.warning("registry_away", reason=reason, advice="clients keep the list that they have")

    def _note_announced(self) -> None:
        self._registration.note(is_connected=True, is_announced=True)
        self._away_since_s, self._is_away_in_log = None, False
        if not self._is_told_in_log:
            self._is_told_in_log = True
            log.info("registry_announced", server=self._registration.server_id)

    def _resign(self) -> None:
        registry, self._registry, self._told = self._registry, None, None
        if registry is None:
            return
        self._registration.note(is_connected=False, is_announced=False)
        self._is_told_in_log = False
        registry.close()

    def _is_silent(self, pid: int) -> bool:
        if pid == os.getpid():
            return False
        now_s = time.monotonic()
        with self._context.board.locked() as rows:
            return any(row.pid == pid and row.is_silent(now_s) for row in rows)
