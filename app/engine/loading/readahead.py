"""Reads files into the page cache on a thread of its own, so that a load finds them in memory.

A load runs on the inference thread, where every other model waits for it: what it has to fetch from
a disk or a network is fetched before it begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from app.core.errors import ModelLoadError
from app.core.logs.logging import get_logger
from app.models.folder.model_folder import weight_files

CHUNK_BYTES = 8 * 2**20

log = get_logger("engine")


class ReadAhead:
    """Reads the weights in ``folder`` once and calls ``done``.

    What cannot be found or read is left to the load to complain about.
    """

    def __init__(self, folder: Path, done: Callable[[], None]):
        self._folder = folder
        self._done = done
        self.has_ended = False
        threading.Thread(target=self._run, name="page-reader", daemon=True).start()

    def _run(self) -> None:
        try:
            for path in weight_files(self._folder):
                _read(path)
        except (OSError, ModelLoadError) as error:
            log.warning("cannot_read_ahead", error=str(error))
        finally:
            self.has_ended = True
            self._done()


def _read(path: Path) -> None:
    buffer = bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
