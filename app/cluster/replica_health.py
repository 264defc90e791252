"""Whether a replica is to be replaced: the watch's word, kept for whoever asks. The watch's thread, and Ray's question.

A worker of Gunicorn's ends itself for a defect. A replica is ended by Ray, which asks every few seconds and brings
another one up; by then callers have their answers, and new ones are told to come again.
"""

from __future__ import annotations

from app.core.errors import ModelLoadError
from app.serve.context import WorkerContext
from app.serve.processes.watch import STOP_THE_SERVER, Watch


class DefectError(RuntimeError):
    """This replica must be replaced; the log says why."""


class ReplicaHealth:
    """Starts the watch over ``context``."""

    def __init__(self, context: WorkerContext):
        self._context = context
        self._code: int | None = None
        Watch(context, end=self._note).start()

    def check(self) -> None:
        """Raise ``ModelLoadError`` or ``DefectError`` once the watch has found a reason."""
        if self._code == STOP_THE_SERVER:
            raise ModelLoadError(str(self._context.inference.load_failure()))
        if self._code is not None:
            raise DefectError("the inference thread of this replica died or hangs")

    def _note(self, code: int) -> None:
        self._code = code if self._code is None else self._code
