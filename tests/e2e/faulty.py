"""A whole Forklift in which tests can order faults; see ``faults``."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from typing import ClassVar

from tests.e2e.conftest import Forklift
from tests.processes import is_alive
from tests.service.conftest import LOAD_PATIENCE_S, wait_for


class FaultyForklift(Forklift):
    """``order`` says what shall go wrong."""

    arguments: ClassVar[tuple[str, ...]] = ("-c", "tests/e2e/gunicorn_faults.py", "wsgi:app")

    def __init__(self, folder: Path, environ: dict[str, str]):
        self._fault = folder / "fault"
        if "FAULT_AT_START" in environ:
            self.order(environ["FAULT_AT_START"])
        super().__init__(folder, {"FAULT_FILE": str(self._fault)} | environ)

    def order(self, word: str) -> None:
        new = self._fault.with_suffix(".new")
        new.write_text(word)
        new.replace(self._fault)

    def pid(self, slot: int = 0) -> int | None:
        """The worker's process id; None where nobody could say."""
        try:
            pid: int | None = self.rows()[slot]["pid"]
        except (OSError, http.client.HTTPException):  # the answer of a dying worker may be cut
            return None
        return pid

    def wait_until_replaced(self, old_pid: int | None, slot: int = 0) -> None:
        wait_for(lambda: self.pid(slot) not in (None, old_pid) and self._is_ready(), "a new worker", LOAD_PATIENCE_S)

    def _is_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def seconds_until_gone(pid: int) -> float:
    """How long the process still lives; a zombie counts as gone."""
    started_s = time.monotonic()
    wait_for(lambda: not is_alive(pid), "the end of the worker", 60)
    return time.monotonic() - started_s
