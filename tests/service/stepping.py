"""A stand-in for the engine below the real application: it steps as the engine does, without a model.

Runs inside real Gunicorn workers. Steered by ``STEP_`` environment variables: STEP_GATE names a file
that stops all tokens while it exists, STEP_TOKEN_S is the time of a step, STEP_CONTEXT_TOKENS the
model's context. STEP_LOG names a file that gets a line when a job starts and when it ends. With STEP_STALL_S a gate
that holds a job for so long is a defect, as a hung engine is.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.errors import RequestError, ShuttingDownError, StartError
from app.core.settings import Settings
from app.core.work.job_events import TextDelta
from app.core.work.jobs import Job
from app.engine.generation.waiting import WaitingJobs
from tests.contract.doubles import ScriptedModel
from tests.serving import OneHandle


class SteppingInference:
    """One thread; ``max_batch_size`` sequences at once; one token per step for every job that runs."""

    kv_cache_max_bytes = 0

    def __init__(self, settings: Settings, slot: int, on_state: Callable[[Any, float], None], _metrics: object):
        self.model = ScriptedModel(context_tokens=int(os.environ.get("STEP_CONTEXT_TOKENS", "4096")))
        self.kv_memory = None
        self.handles = (OneHandle(self, settings),)
        self._max_running = settings.max_batch_size
        self._slot = slot
        self._on_state = on_state
        self._token_s = float(os.environ.get("STEP_TOKEN_S", "0.005"))
        self._gate = Path(os.environ.get("STEP_GATE", "/nonexistent"))
        # Open from the start: a test may leave the worker no descriptor for it later.
        self._log = os.open(os.environ.get("STEP_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._waiting = WaitingJobs()
        self._running: list[Job] = []
        self._cancelled_by: RequestError | None = None
        self._is_draining = False
        self._stall_s = float(os.environ.get("STEP_STALL_S", "inf"))
        self._moved_s = time.monotonic()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, job: Job) -> None:
        self._inbox.put(job)

    def drain(self) -> None:
        self._is_draining = True

    def cancel_all(self, error: RequestError) -> None:
        self._cancelled_by = error

    def load_failure(self) -> StartError | None:
        return None

    def start_anew(self) -> None: ...

    def defect(self) -> str | None:
        return "the engine hangs" if time.monotonic() - self._moved_s > self._stall_s else None

    def _run(self) -> None:
        self._on_state("ready", 1.0)
        while True:
            time.sleep(self._token_s)
            while not self._inbox.empty():
                self._waiting.add(self._inbox.get())
            self._stop_jobs()
            self._admit()
            if not self._gate.exists():
                self._advance()
                self._moved_s = time.monotonic()
            elif not self._running:
                self._moved_s = time.monotonic()

    def _stop_jobs(self) -> None:
        if self._cancelled_by is not None or self._is_draining:
            self._waiting.fail_all(self._cancelled_by or ShuttingDownError("shutting down", retry_after_s=1))
        self._waiting.sweep(time.monotonic())
        for job in list(self._running):
            cause = self._cancelled_by or job.stop_cause(time.monotonic())
            if cause is not None:
                self._end(job, lambda job=job, cause=cause: job.fail(cause))

    def _admit(self) -> None:
        while len(self._waiting) and len(self._running) < self._max_running:
            job = self._waiting.start_next()
            self._note("started", job)
            self._running.append(job)

    def _advance(self) -> None:
        for job in list(self._running):
            job.count_token()
            job.emit(TextDelta("x"))
            if job.usage.completion_tokens >= job.params.max_new_tokens:
                self._end(job, lambda job=job: job.finish("length"))

    def _end(self, job: Job, end: Callable[[], None]) -> None:
        self._running.remove(job)
        self._note("ended", job)
        end()

    def _note(self, event: str, job: Job) -> None:
        os.write(self._log, f"{event} {job.request_id} {job.usage.completion_tokens} {self._slot}\n".encode())
