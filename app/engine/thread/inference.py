"""The inference thread: the only one that touches torch. Loads models, then steps each in turn.

Torch and transformers are imported on this thread, after the process was bound to its GPU.
HTTP threads hand jobs in with ``submit``; the worker's main thread starts, drains and watches it.
"""

from __future__ import annotations

import atexit
import threading
import time
from typing import TYPE_CHECKING

from app.core.errors import InternalError, LoadingError, RequestError, StartError, shutting_down
from app.core.logs.logging import get_logger
from app.core.logs.tracebacks import OF_TENSORS, for_callers
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.core.states import OnState
from app.core.system.importing import importing_once
from app.core.system.memory.heap import NUM_HEAPS, limit_heaps
from app.core.work.jobs import BaseJob
from app.engine.loading.handle import ModelHandle
from app.engine.thread.first_load import FirstLoad
from app.engine.thread.inbox import Inbox
from app.engine.thread.rotation import Rotation
from app.engine.thread.stall_clock import StallClock

if TYPE_CHECKING:
    from app.engine.checks.features import Model
    from app.engine.loading.background import BackgroundCompiling
    from app.engine.loading.pool import ModelPool
    from app.engine.loading.prepared import KvMemory

STOP_TIMEOUT_S = 5.0
# While steps go on, between two looks for what is to be loaded, unloaded or given back; a wake-up is heeded at once.
LOOK_PERIOD_S = 0.1

log = get_logger("engine")


class Inference:
    """One worker's models and the thread that runs them; ``handle`` has the order of the settings.

    ``on_state`` is told every change of state and the progress of loading (0 to 1); it is called
    on this thread. ``ready`` means that the models which stay are loaded.
    """

    def __init__(self, settings: Settings, slot: int, on_state: OnState, metrics: Metrics):
        self._inbox = Inbox(self._require_open)
        self.handles = tuple(ModelHandle(plan, self._inbox) for plan in settings.plans)
        limit_heaps(1 if any(handle.is_on_demand for handle in self.handles) else NUM_HEAPS)
        self._slot = slot
        self._on_state = on_state
        self._metrics = metrics
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._stall_clock = StallClock(settings.load_timeout_s, settings.stall_timeout_s)
        self._first_load = FirstLoad(slot, on_state)
        self._rotation = Rotation(self.handles, self._stall_clock)
        self._pool: ModelPool | None = None
        self._compiling: BackgroundCompiling | None = None
        self._is_ready = False
        self._next_look_s = 0.0
        self._leaving = threading.Event()
        self._cancelled_by: RequestError | None = None
        self._is_stopped = False

    # any thread

    @property
    def model(self) -> Model | None:
        """The first model; None while it is not loaded."""
        return self.handles[0].model

    @property
    def kv_memory(self) -> KvMemory | None:
        """Memory of the first model's KV cache."""
        return self.handles[0].kv_memory

    @property
    def kv_cache_max_bytes(self) -> int:
        """What the KV caches of all loaded models may take."""
        memories = [handle.kv_memory for handle in self.handles]
        return sum(memory.max_bytes for memory in memories if memory is not None)

    def start(self) -> None:
        """Start loading; returns at once."""
        atexit.register(self._stop)
        self._thread.start()

    def submit(self, job: BaseJob, handle: ModelHandle | None = None) -> None:
        """Queue ``job`` for a loaded model, by default the first.

        Raises ``LoadingError`` or ``ShuttingDownError`` where it cannot be taken.
        """
        self._require_open()
        self._inbox.put(job, (self.handles[0] if handle is None else handle).engine)

    def _require_open(self) -> None:
        if self._leaving.is_set():
            raise shutting_down()
        if not self._is_ready or self._stall_clock.crash is not None:
            raise LoadingError("the model is loading")

    def drain(self) -> None:
        """Take no new jobs and fail the waiting ones; running ones go on. A first load is not tried again."""
        self._leaving.set()
        self._inbox.wake()

    def cancel_all(self, error: RequestError) -> None:
        """Fail every job before its next token."""
        self._cancelled_by = error
        self.drain()

    def load_failure(self) -> StartError | None:
        """Why the last load failed; None while loading or ready. The thread tries again by itself."""
        return self._first_load.failure

    def start_anew(self) -> None:
        """The process did not run for a while: what seems late had no time either."""
        self._stall_clock.start_anew(time.monotonic())

    def defect(self) -> str | None:
        """Why this process must be replaced, or None."""
        if self._stall_clock.crash is not None:
            return self._stall_clock.crash
        if (poison := self._rotation.poison()) is not None:
            return f"the device is unusable: {poison}"
        return self._stall_clock.overdue(time.monotonic())

    def _stop(self) -> None:
        """Let the thread leave torch before the interpreter ends: killed inside C++ it would abort the process."""
        self._is_stopped = True
        self.cancel_all(shutting_down())
        self._thread.join(STOP_TIMEOUT_S)

    # inference thread

    def _run(self) -> None:
        try:
            self._pool = self._first_load.run(self._load, self._leaving)
            if self._pool is not None:
                self._serve(self._pool)
        except BaseException as error:
            with for_callers(OF_TENSORS):
                log.exception("inference_thread_died", slot=self._slot)
            self._stall_clock.crash = f"the inference thread died: {type(error).__name__}"
            self._on_state("failed", 0.0)
            self._fail_everything()

    def _load(self) -> ModelPool:
        """Load the models that stay, warm up and become ready. Raises ``StartError``."""
        self._stall_clock.note_loading(True)
        try:
            with importing_once("transformers"):
                from app.engine.checks.steps import played_by
                from app.engine.loading.background import BackgroundCompiling
                from app.engine.loading.build import prepare
                from app.engine.loading.pool import ModelPool

            self._on_state("loading", 0.1)
            self._compiling = BackgroundCompiling(self._metrics, self._inbox.wake, played_by)
            pool = ModelPool(
                self.handles,
                self._slot,
                self._metrics,
                note_loading=self._stall_clock.note_loading,
                prepare=prepare,
                wake=self._inbox.wake,
                on_loaded=self._compiling.consider,
            )
            pool.load_residents(lambda share: self._on_state("loading", share))
        finally:
            self._stall_clock.note_loading(False)
        self._is_ready = True
        self._on_state("ready", 1.0)
        return pool

    def _serve(self, pool: ModelPool) -> None:
        patience_s: float | None = 0.0
        while True:
            self._take_jobs(patience_s)
            if self._is_stopped:
                return
            is_busy = self._rotation.step()
            patience_s = 0.0 if is_busy and not self._must_look else self._look(pool)

    def _take_jobs(self, patience_s: float | None) -> None:
        """Move what was submitted to the engines; ``patience_s`` as in ``Inbox.take``."""
        for job, engine in self._inbox.take(patience_s):
            engine.add(job)
        if self._leaving.is_set():
            self._close_down()

    def _close_down(self) -> None:
        """Fail what waits, or everything."""
        if self._cancelled_by is not None:
            self._rotation.fail_all(self._cancelled_by)
        else:
            self._rotation.fail_waiting(shutting_down())

    @property
    def _must_look(self) -> bool:
        return self._inbox.was_woken or time.monotonic() >= self._next_look_s

    def _look(self, pool: ModelPool) -> float | None:
        """Load, unload and give back what is due; for how long the thread may wait then, None: until it is woken."""
        self._tend(pool)
        now_s = time.monotonic()
        waits = (
            self._rotation.rest(now_s),
            None if self._leaving.is_set() else pool.next_look_s(now_s),
            0.0 if self._compiling is not None and self._compiling.is_changing else None,
        )
        if self._inbox.was_woken or self._rotation.have_work:
            return 0.0
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def _tend(self, pool: ModelPool) -> None:
        """Load and unload what is due."""
        self._inbox.was_woken = False
        if self._compiling is not None and not self._leaving.is_set():
            self._compiling.tend()
        if not self._leaving.is_set() and pool.tend(time.monotonic()):
            self._on_state("ready", 1.0)
            self._inbox.was_woken = True  # another one may be due
        self._next_look_s = time.monotonic() + LOOK_PERIOD_S

    def _fail_everything(self) -> None:
        self._rotation.fail_all(InternalError())
        for job, _ in self._inbox.take(0.0):
            job.fail(InternalError())


def make_inference(settings: Settings, slot: int, on_state: OnState, metrics: Metrics | None = None) -> Inference:
    """The factory that ``post_fork`` is given; without ``metrics`` loads are counted for nobody."""
    return Inference(settings, slot, on_state, Metrics() if metrics is None else metrics)
