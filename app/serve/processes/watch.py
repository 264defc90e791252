"""The watch over one worker's inference thread: a thread of its own, whatever the worker class.

Gunicorn's heartbeat comes from the main thread and goes on when inference hangs, so the worker
looks for itself. It ends the process from here: the main thread may be inside a request.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from app.core.errors import InternalError, shutting_down
from app.core.logs import log_writer
from app.core.logs.logging import get_logger
from app.serve.context import WorkerContext

# Shorter than the inference thread's first pause between two loads, so that no failure is missed.
PERIOD_S = 0.5
# A watch that was away for longer did not run: the process was stopped, or the machine slept.
LATE_S = 1.0
# What the requests of a worker with a defect get to write their error answers.
LAST_WORDS_S = 1.0
REPLACE_ME = 1
# Gunicorn's code for "failed to boot": the master stops the whole server.
STOP_THE_SERVER = 3

log = get_logger("serve")


def leave(code: int) -> NoReturn:
    """End this process at once. A plain exit would wait for HTTP threads, and an inference thread
    inside native code can abort an interpreter that is being taken down."""
    logging.shutdown()
    log_writer.drain()
    os._exit(code)


class Watch:
    """Looks at the inference thread every ``PERIOD_S``.

    ``is_stopping`` is given for Gunicorn's own worker classes only, which know nothing of
    inference: once it answers True, the watch drains and cancels on their behalf. ``end`` is how this process
    ends, or tells whoever ends it; nothing is looked at behind it.
    """

    def __init__(
        self,
        context: WorkerContext,
        is_stopping: Callable[[], bool] | None = None,
        end: Callable[[int], None] = leave,
    ):
        self._context = context
        self._is_stopping = is_stopping or (lambda: False)
        self._end = end
        self._is_over = False
        self._cancel_at_s: float | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while not self._is_over:
            before_s = time.monotonic()
            time.sleep(PERIOD_S)
            now_s = time.monotonic()
            if now_s - before_s > PERIOD_S + LATE_S:
                # Whatever seems late since then had no time either.
                self._context.inference.start_anew()
            self.look(now_s)

    def look(self, now_s: float) -> None:
        """One look. May end the process."""
        if num_lost := log_writer.take_num_lost():
            self._context.metrics.count_lost_log_lines(num_lost)
            log.warning("log_lines_lost", num_lines=num_lost)
        self._look_for_load_failure()
        self._look_for_defect()
        if self._is_stopping():
            self._stop(now_s)

    def _look_for_load_failure(self) -> None:
        """A load that fails before any worker was ever ready stops the server; later, it is retried."""
        failure = self._context.inference.load_failure()
        if failure is not None and self._context.board.claim_halt():
            print(f"forklift: {failure}", file=log_writer.never_blocking(sys.stderr), flush=True)
            self._finish(STOP_THE_SERVER)

    def _look_for_defect(self) -> None:
        defect = self._context.inference.defect()
        if defect is None:
            return
        log.error("worker_defect", slot=self._context.slot, reason=defect)
        if self._context.slot is not None:
            self._context.board.set_state(self._context.slot, "failed")
        self._context.inference.cancel_all(InternalError())
        time.sleep(LAST_WORDS_S)
        self._finish(REPLACE_ME)

    def _finish(self, code: int) -> None:
        self._is_over = True
        self._end(code)

    def _stop(self, now_s: float) -> None:
        if self._cancel_at_s is None:
            self._cancel_at_s = now_s + self._context.settings.drain_timeout_s
            if self._context.slot is not None:
                self._context.board.set_state(self._context.slot, "draining")
            self._context.inference.drain()
        elif now_s >= self._cancel_at_s:
            self._context.inference.cancel_all(shutting_down())
