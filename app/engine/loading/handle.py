"""One model of this worker, loaded or not, and the requests that use it.

HTTP threads take a ``ModelLease`` and give it back; as long as there is one the model is not unloaded. The
inference thread loads and unloads. Knows neither torch nor memory.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from app.core.errors import LoadingError, RequestError
from app.core.settings import ModelPlan, Settings
from app.core.states import EngineName, ModelState
from app.core.tasks.task_table import Task
from app.core.work.adapters import Adapter
from app.core.work.jobs import BaseJob

if TYPE_CHECKING:
    from app.engine.checks.features import Model
    from app.engine.engine_interface import Engine
    from app.engine.loading.prepared import KvMemory, Prepared
    from app.engine.thread.inbox import Inbox
    from app.models.forecast import Footprint


class ModelLease:
    """One request's use of a model, from the moment it asks until its last sequence ended."""

    def __init__(self, handle: ModelHandle, inbox: Inbox):
        self.created_s = time.monotonic()
        self._handle = handle
        self._inbox = inbox
        self._answered = threading.Event()
        self._model: Model | None = None
        self._error: RequestError | None = None

    def grant(self, model: Model) -> None:
        """The model is loaded and stays so until ``release``."""
        self._model = model
        self._answered.set()

    def refuse(self, error: RequestError) -> None:
        """The model will not be loaded for this request."""
        self._error = error
        self._answered.set()

    def wait(self, timeout_s: float) -> Model | None:
        """The model; None where it is not loaded yet. Raises the ``RequestError`` that keeps it from being."""
        self._answered.wait(max(timeout_s, 0.0))
        if self._error is not None:
            raise self._error
        return self._model

    def submit(self, job: BaseJob) -> None:
        """Queue ``job``; the lease must have been granted. Raises as ``Inbox.put``."""
        self._inbox.put(job, self._handle.engine)

    def release(self) -> None:
        """Give the use back, granted or not; harmless when repeated."""
        self._handle.end(self)


class ModelHandle:
    """A model that requests can name; ``inbox`` is the inference thread's."""

    def __init__(self, plan: ModelPlan, inbox: Inbox):
        self.plan = plan
        self.task: Task | None = plan.task
        self.footprint: Footprint | None = None
        self.prepared: Prepared | None = None
        self.is_loading = False
        # A package is made for its step, while it serves.
        self.is_compiling = False
        self.has_failed = False
        self.idle_since_s = 0.0
        self._inbox = inbox
        self._lock = threading.Lock()
        self._leases: set[ModelLease] = set()
        self._waiting: list[ModelLease] = []
        self._is_closing = False

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def parent(self) -> str | None:
        """The model that an adapter changes."""
        return None

    @property
    def settings(self) -> Settings:
        """The model's own settings."""
        return self.plan.settings

    @property
    def is_on_demand(self) -> bool:
        return self.plan.load == "on_demand"

    @property
    def model(self) -> Model | None:
        """None while it is not loaded."""
        prepared = self.prepared
        return None if prepared is None else prepared.model

    @property
    def engine(self) -> Engine:
        """What runs the model; it must be loaded, which every lease keeps it."""
        prepared = self.prepared
        assert prepared is not None, "a model is not unloaded while a request uses it"
        return prepared.engine

    @property
    def kv_memory(self) -> KvMemory | None:
        prepared = self.prepared
        return None if prepared is None else prepared.kv_memory

    @property
    def engine_name(self) -> EngineName | None:
        """The way that the model is run; None while it is not loaded."""
        prepared = self.prepared
        return None if prepared is None else prepared.engine_name

    @property
    def dropped(self) -> list[str] | None:
        """What failed the check at the load and was left out; None while the model is not loaded."""
        prepared = self.prepared
        return None if prepared is None else list(prepared.dropped)

    @property
    def is_compiled(self) -> bool | None:
        """Whether it decodes on a compiled step; None while the model is not loaded."""
        prepared = self.prepared
        return None if prepared is None else prepared.is_compiled

    @property
    def quantization(self) -> str:
        """The one that holds; the one that was asked for while the model is not loaded."""
        prepared = self.prepared
        return (self.settings if prepared is None else prepared.settings).quantization

    @property
    def num_draft_tokens(self) -> int:
        """The longest guess of the next tokens; as with ``quantization``."""
        prepared = self.prepared
        return (self.settings if prepared is None else prepared.settings).num_draft_tokens

    @property
    def state(self) -> ModelState:
        """``failed``: the last load did; the next request tries again."""
        if self.prepared is not None:
            return "loaded"
        if self.is_loading or not self.is_on_demand:
            return "loading"
        return "failed" if self.has_failed else "unloaded"

    # any thread

    def adapter_of(self, _model: Model) -> Adapter | None:
        """What changes the model for a request that names this handle; it is loaded."""
        return None

    def lease(self) -> ModelLease:
        """Ask for the model; one that is loaded on demand is then loaded.

        Raises ``LoadingError`` or ``ShuttingDownError`` where it cannot be taken.
        """
        self._inbox.require_open()
        lease = ModelLease(self, self._inbox)
        with self._lock:
            if self.prepared is not None and not self._is_closing:
                self._leases.add(lease)
                lease.grant(self.prepared.model)
                return lease
            if not self.is_on_demand:
                raise LoadingError("the model is still loading")
            self._waiting.append(lease)
        self._inbox.wake()
        return lease

    def end(self, lease: ModelLease) -> None:
        """``lease`` is over."""
        with self._lock:
            if lease in self._waiting:
                self._waiting.remove(lease)
            self._leases.discard(lease)
            is_last = not self._leases
            self.idle_since_s = time.monotonic()
        if is_last and self.is_on_demand:
            self._inbox.wake()

    # inference thread

    @property
    def has_work(self) -> bool:
        return self.prepared is not None and self.prepared.engine.has_work

    @property
    def is_idle(self) -> bool:
        """Nobody uses it; a closing model that is idle may be unloaded."""
        with self._lock:
            return not self._leases

    @property
    def waits_since_s(self) -> float | None:
        """When the first of those asked that wait for the model; None where nobody does."""
        with self._lock:
            return self._waiting[0].created_s if self._waiting else None

    def open(self, prepared: Prepared) -> None:
        """The model is loaded: whoever waits gets it."""
        with self._lock:
            self.prepared = prepared
            self.task = prepared.model.task
            self.is_loading = self.has_failed = False
            self.idle_since_s = time.monotonic()
        self.resume()

    def note(self, prepared: Prepared) -> None:
        """What is served has changed its form, not its answers: requests go on."""
        with self._lock:
            self.prepared = prepared

    def hold_back(self) -> None:
        """New uses wait, so that the model becomes idle and can be unloaded."""
        with self._lock:
            self._is_closing = True

    def resume(self) -> None:
        """Grant what waits for the loaded model."""
        with self._lock:
            self._is_closing = False
            if self.prepared is None:
                return
            for lease in self._waiting:
                self._leases.add(lease)
                lease.grant(self.prepared.model)
            self._waiting.clear()

    def close(self) -> Prepared | None:
        """Take the model out of service where nobody uses it; the caller lets go of it then."""
        with self._lock:
            if self._leases:
                return None
            prepared, self.prepared = self.prepared, None
            self._is_closing = False
            return prepared

    def refuse_waiting(self, error: RequestError) -> None:
        """Fail the requests that wait for the model."""
        with self._lock:
            for lease in self._waiting:
                lease.refuse(error)
            self._waiting.clear()
