"""The inference thread: the only one that touches torch. Loads the model, warms up, then steps.

Torch and transformers are imported on this thread, after the process was bound to its GPU.
HTTP threads hand jobs in with ``submit``; the worker's main thread starts, drains and watches it.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from app.core.errors import (
    InternalError,
    LoadingError,
    RequestError,
    ShuttingDownError,
    StartError,
)
from app.core.jobs import BaseJob
from app.core.logging import get_logger
from app.core.settings import Settings

if TYPE_CHECKING:
    from app.engine.preparation import Engine, KvMemory, Model

State = Literal["loading", "ready", "draining", "failed"]
OnState = Callable[[State, float], None]

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 60.0
LOADING_RETRY_AFTER_S = 2
SHUTTING_DOWN_RETRY_AFTER_S = 1
STOP_TIMEOUT_S = 5.0

log = get_logger("engine")


class Inference:
    """One worker's model and the thread that runs it.

    ``on_state`` is told every change of state and the progress of loading (0 to 1); it is called
    on this thread.
    """

    def __init__(self, settings: Settings, slot: int, on_state: OnState):
        self.model: Model | None = None
        self.kv_memory: KvMemory | None = None
        self._settings = settings
        self._slot = slot
        self._on_state = on_state
        self._inbox: queue.SimpleQueue[BaseJob | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._generator: Engine | None = None
        self._load_failure: StartError | None = None
        self._loading_since_s: float | None = None
        self._busy_since_s: float | None = None
        self._is_draining = False
        self._cancelled_by: RequestError | None = None
        self._crash: str | None = None
        self._is_stopped = False

    # any thread

    def start(self) -> None:
        """Start loading; returns at once."""
        atexit.register(self._stop)
        self._thread.start()

    def submit(self, job: BaseJob) -> None:
        """Queue ``job``. Raises ``LoadingError`` or ``ShuttingDownError`` where it cannot be taken."""
        if self._is_draining:
            raise _shutting_down()
        if self._generator is None or self._crash is not None:
            raise LoadingError("the model is loading", retry_after_s=LOADING_RETRY_AFTER_S)
        self._inbox.put(job)

    def drain(self) -> None:
        """Take no new jobs and fail the waiting ones; running ones go on."""
        self._is_draining = True
        self._inbox.put(None)

    def cancel_all(self, error: RequestError) -> None:
        """Fail every job before its next token."""
        self._cancelled_by = error
        self._is_draining = True
        self._inbox.put(None)

    def load_failure(self) -> StartError | None:
        """Why the last load failed; None while loading or ready. The thread tries again by itself."""
        return self._load_failure

    def defect(self) -> str | None:
        """Why this process must be replaced, or None."""
        now = time.monotonic()
        if self._crash is not None:
            return self._crash
        if self._generator is not None and self._generator.guard.poison is not None:
            return f"the device is unusable: {self._generator.guard.poison}"
        if _is_older(self._loading_since_s, self._settings.load_timeout_s, now):
            return f"loading took longer than {self._settings.load_timeout_s:g} s"
        if _is_older(self._busy_since_s, self._settings.stall_timeout_s, now):
            return f"no token for {self._settings.stall_timeout_s:g} s"
        return None

    def _stop(self) -> None:
        """Let the thread leave torch before the interpreter ends: killed inside C++ it would abort the process."""
        self.cancel_all(_shutting_down())
        self._is_stopped = True
        self._inbox.put(None)
        self._thread.join(STOP_TIMEOUT_S)

    # inference thread

    def _run(self) -> None:
        try:
            generator = self._load_until_it_works()
            while not self._is_stopped:
                self._take_jobs(generator)
                self._busy_since_s = time.monotonic()
                generator.step()
                if not generator.has_work:
                    self._busy_since_s = None
        except BaseException as error:
            log.exception("inference_thread_died", slot=self._slot)
            self._crash = f"the inference thread died: {type(error).__name__}"
            self._on_state("failed", 0.0)
            self._fail_everything()

    def _take_jobs(self, generator: Engine) -> None:
        """Move what was submitted to the generator; wait where there is nothing to do."""
        while True:
            try:
                job = self._inbox.get(block=not generator.has_work and not self._is_stopped)
            except queue.Empty:
                break
            if job is not None:
                generator.add(job)
        if self._cancelled_by is not None:
            generator.fail_all(self._cancelled_by)
        elif self._is_draining:
            generator.fail_waiting(_shutting_down())

    def _fail_everything(self) -> None:
        if self._generator is not None:
            self._generator.fail_all(InternalError())
        while True:
            try:
                job = self._inbox.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job.fail(InternalError())

    def _load_until_it_works(self) -> Engine:
        pause_s = FIRST_RETRY_S
        while True:
            self._on_state("loading", 0.0)
            try:
                return self._load()
            except StartError as error:
                self._load_failure = error
            self._loading_since_s = None
            self._on_state("failed", 0.0)
            log.error("load_failed", slot=self._slot, error=str(self._load_failure), retry_in_s=pause_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_RETRY_S)
            self._load_failure = None

    def _load(self) -> Engine:
        """Load, warm up and become ready. Raises ``StartError``."""
        self._loading_since_s = started_s = time.monotonic()
        from app.engine.preparation import prepare

        self._on_state("loading", 0.1)
        prepared = prepare(self._settings, lambda share: self._on_state("loading", share), self._between_tokens)
        self._loading_since_s = None
        self.kv_memory, self.model, self._generator = prepared.kv_memory, prepared.model, prepared.generator
        checkpoint = prepared.model.checkpoint
        log.info(
            "model_loaded",
            slot=self._slot,
            model=prepared.model.name,
            task=prepared.model.task,
            device=str(checkpoint.device),
            dtype=str(checkpoint.dtype).removeprefix("torch."),
            quantization=self._settings.quantization,
            context_tokens=prepared.model.context_tokens,
            engine=type(prepared.generator).__name__,
            load_s=round(time.monotonic() - started_s, 2),
        )
        self._on_state("ready", 1.0)
        return prepared.generator

    def _between_tokens(self) -> None:
        """The fallback calls this inside its long step: meanwhile jobs arrive and deadlines pass."""
        self._busy_since_s = time.monotonic()
        if self._generator is not None:
            self._take_jobs(self._generator)


def make_inference(settings: Settings, slot: int, on_state: OnState) -> Inference:
    """The factory that ``post_fork`` is given."""
    return Inference(settings, slot, on_state)


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("the server is shutting down", retry_after_s=SHUTTING_DOWN_RETRY_AFTER_S)


def _is_older(since_s: float | None, limit_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s > limit_s
