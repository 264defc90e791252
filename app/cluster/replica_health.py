"""Whether a replica is to be replaced: the watch's word, kept for whoever asks. The watch's thread, and Ray's.

For a defect the process ends itself, as a worker of Gunicorn's does, once its callers have their answers. Ray would
take some ten seconds to do it, and meanwhile a proxy that looks for the fewest connections sends nearly every request
to the one replica that answers 503 at once.
"""

from __future__ import annotations

from collections.abc import Callable

from app.core.errors import ModelLoadError
from app.serve.context import WorkerContext
from app.serve.processes.watch import REPLACE_ME, STOP_THE_SERVER, Watch, leave


class DefectError(RuntimeError):
    """This replica must be replaced; the log says why."""


class ReplicaHealth:
    """Starts the watch over ``context``; ``end`` ends the process."""

    def __init__(self, context: WorkerContext, end: Callable[[int], None] = leave):
        self._context = context
        self._end = end
        self._code: int | None = None
        Watch(context, end=self._note).start()

    def check(self) -> None:
        """Raise ``ModelLoadError`` or ``DefectError`` once the watch has found a reason."""
        if self._code == STOP_THE_SERVER:
            raise ModelLoadError(str(self._context.inference.load_failure()))
        if self._code is not None:
            raise DefectError("the inference thread of this replica died or hangs")

    def _note(self, code: int) -> None:
        if self._code is None:
            self._code = code
            if code == REPLACE_ME:
                self._end(code)
