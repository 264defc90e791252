"""The inference thread: the only one that touches torch. Loads models, warms up, then steps each in turn.

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
from app.core.heap import use_one_heap
from app.core.jobs import BaseJob
from app.core.logging import get_logger
from app.core.settings import Settings
from app.engine.served import Served

if TYPE_CHECKING:
    from app.engine.pool import ModelPool
    from app.engine.preparation import KvMemory, Model

State = Literal["loading", "ready", "draining", "failed"]
OnState = Callable[[State, float], None]

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 60.0
LOADING_RETRY_AFTER_S = 2
SHUTTING_DOWN_RETRY_AFTER_S = 1
STOP_TIMEOUT_S = 5.0

log = get_logger("engine")


class Inference:
    """One worker's models and the thread that runs them; ``served`` has the order of the settings.

    ``on_state`` is told every change of state and the progress of loading (0 to 1); it is called
    on this thread. ``ready`` means that the models which stay are loaded.
    """

    def __init__(self, settings: Settings, slot: int, on_state: OnState):
        self.served = tuple(Served(plan, self.submit, self._wake, self._require_open) for plan in settings.plans)
        if any(served.is_on_demand for served in self.served):
            use_one_heap()
        self._settings = settings
        self._slot = slot
        self._on_state = on_state
        self._inbox: queue.SimpleQueue[tuple[BaseJob, Served] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._pool: ModelPool | None = None
        self._is_ready = False
        self._is_tending = False
        self._load_failure: StartError | None = None
        self._loading_since_s: float | None = None
        self._busy_since_s: float | None = None
        self._next_rest_s: float | None = None
        self._is_draining = False
        self._cancelled_by: RequestError | None = None
        self._crash: str | None = None
        self._is_stopped = False

    # any thread

    @property
    def model(self) -> Model | None:
        """The first model; None while it is not loaded."""
        return self.served[0].model

    @property
    def kv_memory(self) -> KvMemory | None:
        """Memory of the first model's KV cache."""
        return self.served[0].kv_memory

    @property
    def kv_cache_max_bytes(self) -> int:
        """What the KV caches of all loaded models may take."""
        memories = [served.kv_memory for served in self.served]
        return sum(memory.max_bytes for memory in memories if memory is not None)

    def start(self) -> None:
        """Start loading; returns at once."""
        atexit.register(self._stop)
        self._thread.start()

    def submit(self, job: BaseJob, served: Served | None = None) -> None:
        """Queue ``job`` for a loaded model, by default the first.

        Raises ``LoadingError`` or ``ShuttingDownError`` where it cannot be taken.
        """
        self._require_open()
        self._inbox.put((job, self.served[0] if served is None else served))

    def _require_open(self) -> None:
        if self._is_draining:
            raise _shutting_down()
        if not self._is_ready or self._crash is not None:
            raise LoadingError("the model is loading", retry_after_s=LOADING_RETRY_AFTER_S)

    def _wake(self) -> None:
        """Have the thread look at what it has to do."""
        self._inbox.put(None)

    def drain(self) -> None:
        """Take no new jobs and fail the waiting ones; running ones go on."""
        self._is_draining = True
        self._wake()

    def cancel_all(self, error: RequestError) -> None:
        """Fail every job before its next token."""
        self._cancelled_by = error
        self._is_draining = True
        self._wake()

    def load_failure(self) -> StartError | None:
        """Why the last load failed; None while loading or ready. The thread tries again by itself."""
        return self._load_failure

    def defect(self) -> str | None:
        """Why this process must be replaced, or None."""
        now = time.monotonic()
        if self._crash is not None:
            return self._crash
        for served in self.served:
            prepared = served.prepared
            if prepared is not None and prepared.generator.guard.poison is not None:
                return f"the device is unusable: {prepared.generator.guard.poison}"
        if _is_older(self._loading_since_s, self._settings.load_timeout_s, now):
            return f"loading took longer than {self._settings.load_timeout_s:g} s"
        if _is_older(self._busy_since_s, self._settings.stall_timeout_s, now):
            return f"no token for {self._settings.stall_timeout_s:g} s"
        return None

    def _stop(self) -> None:
        """Let the thread leave torch before the interpreter ends: killed inside C++ it would abort the process."""
        self.cancel_all(_shutting_down())
        self._is_stopped = True
        self._wake()
        self._thread.join(STOP_TIMEOUT_S)

    # inference thread

    def _run(self) -> None:
        try:
            self._pool = self._load_until_it_works()
            while not self._is_stopped:
                self._take_jobs(self._patience_s())
                self._step_each()
                self._tend()
                self._rest()
        except BaseException as error:
            log.exception("inference_thread_died", slot=self._slot)
            self._crash = f"the inference thread died: {type(error).__name__}"
            self._on_state("failed", 0.0)
            self._fail_everything()

    def _patience_s(self) -> float | None:
        """How long the thread may wait for something to do; None: until it comes."""
        if self._is_stopped or any(served.has_work for served in self.served):
            return 0.0
        now_s = time.monotonic()
        waits = [] if self._next_rest_s is None else [max(self._next_rest_s - now_s, 0.0)]
        if self._pool is not None and (unloads_in_s := self._pool.next_look_s(now_s)) is not None:
            waits.append(unloads_in_s)
        return min(waits, default=None)

    def _take_jobs(self, patience_s: float | None) -> None:
        """Move what was submitted to the engines, waiting ``patience_s`` at most for the first."""
        try:
            item = self._inbox.get(timeout=patience_s)
            while True:
                if item is not None:
                    self._hand_over(*item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            pass
        if self._is_draining:
            self._close_down()

    def _hand_over(self, job: BaseJob, served: Served) -> None:
        assert served.prepared is not None, "a model is not unloaded while a request uses it"
        served.prepared.generator.add(job)

    def _close_down(self) -> None:
        """Fail what waits, or everything."""
        for served in self.served:
            served.refuse_waiting(self._cancelled_by or _shutting_down())
            if served.prepared is None:
                continue
            if self._cancelled_by is not None:
                served.prepared.generator.fail_all(self._cancelled_by)
            else:
                served.prepared.generator.fail_waiting(_shutting_down())

    def _step_each(self, active: Served | None = None) -> None:
        """One step of every model that has work; ``active`` is in the middle of one of its own.

        Inside it no other step may be a whole request: those models take turns by request.
        """
        for served in self.served:
            if served is active or not served.has_work or served.prepared is None:
                continue
            self._busy_since_s = time.monotonic()
            serial = served.prepared.serial
            if active is not None and serial is not None:
                serial.sweep()
            else:
                served.prepared.generator.step()
        if not any(served.has_work for served in self.served):
            self._busy_since_s = None

    def _tend(self) -> None:
        """Load and unload what is due; a load may come here again, from its warm-up."""
        if self._pool is None or self._is_tending or self._is_draining:
            return
        self._is_tending = True
        try:
            if self._pool.tend(time.monotonic()):
                self._on_state("ready", 1.0)
        finally:
            self._is_tending = False

    def _rest(self) -> None:
        """Let every model give back what it has not needed for long; note when to ask again."""
        now_s = time.monotonic()
        waits = [served.prepared.rest(now_s) for served in self.served if served.prepared is not None]
        self._next_rest_s = min((now_s + wait_s for wait_s in waits if wait_s is not None), default=None)

    def _fail_everything(self) -> None:
        for served in self.served:
            served.refuse_waiting(InternalError())
            if served.prepared is not None:
                served.prepared.generator.fail_all(InternalError())
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                item[0].fail(InternalError())

    def _load_until_it_works(self) -> ModelPool:
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

    def _load(self) -> ModelPool:
        """Load the models that stay, warm up and become ready. Raises ``StartError``."""
        self._note_loading(True)
        from app.engine.pool import ModelPool

        self._on_state("loading", 0.1)
        pool = ModelPool(
            self.served,
            self._slot,
            note_loading=self._note_loading,
            between_tokens=self._between_tokens,
            wake=self._wake,
        )
        pool.load_residents(lambda share: self._on_state("loading", share))
        self._is_ready = True
        self._on_state("ready", 1.0)
        return pool

    def _note_loading(self, is_loading: bool) -> None:
        """While a model loads no other one steps: that is not a stall."""
        self._busy_since_s = None
        self._loading_since_s = time.monotonic() if is_loading else None

    def _between_tokens(self, active: Served) -> None:
        """The fallback calls this inside its long step: meanwhile jobs arrive, deadlines pass, others step."""
        if self._pool is None:
            return
        self._busy_since_s = time.monotonic()
        self._take_jobs(0.0)
        self._step_each(active)
        self._tend()


def make_inference(settings: Settings, slot: int, on_state: OnState) -> Inference:
    """The factory that ``post_fork`` is given."""
    return Inference(settings, slot, on_state)


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("the server is shutting down", retry_after_s=SHUTTING_DOWN_RETRY_AFTER_S)


def _is_older(since_s: float | None, limit_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s > limit_s
