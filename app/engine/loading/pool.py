"""Which models of a worker are loaded: residents at the start, the others when somebody asks.

Everything happens on the inference thread: while transformers builds a model it changes torch's
default dtype for the whole process, so a load on another thread would spoil a pass on this one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from app.core.errors import InsufficientMemoryError, LoadFailedError, ModelLoadError, StartError
from app.core.logs.logging import get_logger
from app.core.metrics import Metrics
from app.core.system.load_marks import marks
from app.engine.loading.handle import ModelHandle
from app.engine.loading.memory_budget import as_loaded, missing_bytes, num_bytes, promised_bytes
from app.engine.loading.prepared import Prepared
from app.engine.loading.readahead import ReadAhead
from app.engine.thread.first_load import unexpected
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.devices import choose_device
from app.models.checkpoint.unloading import give_back
from app.models.forecast import inspect, resident_weight_bytes

ENDED_A_PROCESS = "its last load has ended the process, mostly for want of memory"

log = get_logger("engine")


class ModelPool:
    """Loads and unloads the models of one worker.

    ``note_loading`` is told when a load begins and ends; ``prepare`` is ``build.prepare``; ``wake`` may be called by
    another thread, to have ``tend`` called; ``on_loaded`` is told what was loaded, and what memory is promised.
    """

    def __init__(
        self,
        handles: Sequence[ModelHandle],
        slot: int,
        metrics: Metrics,
        *,
        note_loading: Callable[[bool], None],
        prepare: Callable[..., Prepared],
        wake: Callable[[], None],
        on_loaded: Callable[[ModelHandle, int], None] = lambda _handle, _promised: None,
    ):
        self._handles = handles
        self._on_demand = [one for one in handles if one.is_on_demand]
        self._slot = slot
        self._metrics = metrics
        self._note_loading = note_loading
        self._prepare = prepare
        self._wake = wake
        self._on_loaded = on_loaded
        self._device = choose_device(handles[0].settings.device)
        self._reader: tuple[ModelHandle, ReadAhead] | None = None

    def load_residents(self, progress: Callable[[float], None]) -> None:
        """Learn what the models are, and load those that stay. Raises ``StartError``."""
        residents = [one for one in self._handles if not one.is_on_demand]
        try:
            if len(self._handles) > 1 or self._on_demand:
                self._inspect()
            for i, handle in enumerate(residents):
                if handle.prepared is None:
                    self._require_room(handle)
                    self._note_loading(True)
                    self._load(handle, partial(_share, progress, i, len(residents)))
        finally:
            self._note_loading(False)

    def _require_room(self, resident: ModelHandle) -> None:
        """Raise ``ModelLoadError`` where the weights cannot fit: the kernel would kill the load, without a word.

        A GPU's memory is reckoned with where layers are placed.
        """
        if self._device.type != "cpu":
            return
        needed = resident_weight_bytes(resident.plan)
        free = free_bytes(self._device) - promised_bytes(self._handles)
        if needed > max(free, 0):
            raise ModelLoadError(
                f"the weights of {resident.settings.model} need {needed / 2**30:.2f} GiB, "
                f"{max(free, 0) / 2**30:.2f} GiB are free: more memory, a smaller model, FORKLIFT_DTYPE or "
                "FORKLIFT_QUANTIZATION"
            )

    def _inspect(self) -> None:
        for handle in self._handles:
            try:
                self._inspect_one(handle)
            except ModelLoadError as error:
                if not handle.is_on_demand or not Path(handle.settings.model).exists():
                    raise
                log.warning("model_unavailable", slot=self._slot, model=handle.name, error=str(error))
                handle.has_failed = True

    def _inspect_one(self, handle: ModelHandle) -> None:
        """Learn what the model is and takes. Raises ``ModelLoadError`` for another kind than it was before."""
        inspected = inspect(handle.plan)
        if handle.task not in (None, inspected.task):
            kinds = f"{handle.task} at the start, {inspected.task} now"
            raise ModelLoadError(f"the folder of the model {handle.name} has changed its kind: {kinds}")
        handle.task, handle.footprint = inspected.task, inspected.footprint

    def tend(self, now_s: float) -> bool:
        """Unload what was idle long enough, load what is waited for; whether any of that happened.

        Returns soon, except for a load. Models that others wait for are closed once their running
        requests have ended.
        """
        if not self._on_demand:
            return False
        has_changed = self._unload_idle(now_s)
        wanted = self._wanted()
        if wanted is None:
            for handle in self._on_demand:
                handle.resume()
            return has_changed
        if pause_s := self._pause_s(wanted):
            self._refuse_deadly(wanted, pause_s)
            return True
        if wanted.footprint is None and (failure := self._failure(lambda: self._inspect_one(wanted), wanted)):
            self._refuse_unloadable(wanted, failure)
            return True
        if not self._has_read(wanted) or not self._has_room(wanted):
            return has_changed
        self._load_on_demand(wanted)
        return True

    def next_look_s(self, now_s: float) -> float | None:
        """Seconds until a model will have been idle for long enough; None where none is about to."""
        ends = [one.idle_since_s + one.plan.idle_unload_s for one in self._loaded() if one.is_idle]
        return max(min(ends) - now_s, 0.0) if ends else None

    def _loaded(self) -> list[ModelHandle]:
        """Models that may be unloaded, the one that was idle longest first."""
        return sorted((one for one in self._on_demand if one.prepared is not None), key=lambda one: one.idle_since_s)

    def _wanted(self) -> ModelHandle | None:
        """The model that is waited for longest."""
        waits = [(since_s, one) for one in self._on_demand if not one.prepared and (since_s := one.waits_since_s)]
        return min(waits, key=lambda pair: pair[0])[1] if waits else None

    def _unload_idle(self, now_s: float) -> bool:
        idle = [one for one in self._loaded() if one.is_idle and now_s - one.idle_since_s >= one.plan.idle_unload_s]
        closed = [self._unload(one, "idle") for one in idle]
        return any(closed)

    def _has_read(self, wanted: ModelHandle) -> bool:
        """Whether the weights lie in the page cache; at first nobody else must wait for a disk.

        Without other work there is nobody to protect, and the load may read for itself.
        """
        if self._reader is None or self._reader[0] is not wanted:
            if not any(one.has_work for one in self._handles):
                return True
            self._reader = (wanted, ReadAhead(Path(wanted.settings.model), self._wake))
        return self._reader[1].has_ended

    def _has_room(self, wanted: ModelHandle) -> bool:
        """Whether the model may be loaded now. Unloads others for it, or asks busy ones to come to an end."""
        while (missing := missing_bytes(wanted, self._handles, self._device)) > 0:
            loaded = self._loaded()
            if missing > sum(num_bytes(one) for one in loaded):
                self._refuse_too_large(wanted, missing)
                return False
            idle = next((one for one in loaded if one.is_idle), None)
            if idle is None:
                for one in loaded:
                    one.hold_back()
                return False
            self._unload(idle, "room")
        return True

    def _refuse_too_large(self, wanted: ModelHandle, missing: int) -> None:
        text = f"the model {wanted.name} does not fit into memory beside those that stay loaded"
        log.error("no_memory_to_load", slot=self._slot, model=wanted.name, missing_bytes=missing)
        self._metrics.count_refused_load(wanted.name)
        wanted.has_failed = True
        wanted.refuse_waiting(InsufficientMemoryError(text))

    def _load_on_demand(self, wanted: ModelHandle) -> None:
        """Load for those who wait; where it fails they are told so, and the next request tries again."""
        self._reader = None
        self._note_loading(True)
        wanted.is_loading = True
        place, load_marks = self._handles.index(wanted), marks()
        if load_marks is not None:
            load_marks.begin(place)
        try:
            failure = self._failure(lambda: self._load(wanted, lambda _: None, has_changed=True), wanted)
        finally:
            wanted.is_loading = False
            self._note_loading(False)
        if load_marks is not None:
            load_marks.end(place, has_worked=failure is None)
        if failure is not None:
            self._refuse_unloadable(wanted, failure)

    def _pause_s(self, wanted: ModelHandle) -> float:
        """For how long the model is not loaded, as loading it has ended processes; 0 mostly."""
        load_marks = marks()
        return 0.0 if load_marks is None else load_marks.pause_s(self._handles.index(wanted))

    def _refuse_deadly(self, wanted: ModelHandle, pause_s: float) -> None:
        wait_s = math.ceil(pause_s)
        log.error("load_refused", slot=self._slot, model=wanted.name, reason=ENDED_A_PROCESS, retry_in_s=wait_s)
        wanted.has_failed = True
        text = f"the model {wanted.name} is not loaded: {ENDED_A_PROCESS}; it is tried again in {wait_s} s"
        wanted.refuse_waiting(LoadFailedError(text, retry_after_s=wait_s))

    def _failure(self, act: Callable[[], None], wanted: ModelHandle) -> str | None:
        """What went wrong with ``act`` for the model, or None."""
        try:
            act()
        except StartError as error:
            return str(error)
        except Exception as error:
            log.exception("load_raised", slot=self._slot, model=wanted.name)
            return str(unexpected(error))
        return None

    def _refuse_unloadable(self, wanted: ModelHandle, failure: str) -> None:
        """Not to be called while the error is handled: its traceback keeps what was loaded alive."""
        give_back(self._device)
        log.error("load_failed", slot=self._slot, model=wanted.name, error=failure)
        wanted.has_failed = True
        text = f"the model {wanted.name} could not be loaded; the server's log has the cause"
        wanted.refuse_waiting(LoadFailedError(text))

    def _load(self, handle: ModelHandle, progress: Callable[[float], None], *, has_changed: bool = False) -> None:
        """Load and open; ``has_changed``: the folder may have since it was looked at."""
        started_s = time.monotonic()
        promised = promised_bytes(self._handles)
        with self._metrics.load_of(handle.name):
            if has_changed:
                self._inspect_one(handle)
            prepared = self._prepare(handle.settings, progress, task=handle.task, promised_bytes=promised)
        if handle.footprint is not None:
            handle.footprint = as_loaded(handle.footprint, prepared)
        prepared.engine.guard.on_unsound = partial(self._metrics.count_unsound_logits, handle.name)
        if prepared.graphs is not None:
            prepared.graphs.on_outcome = partial(self._metrics.count_decode_graph, handle.name)
        self._metrics.count_engine(handle.name, prepared.engine_name, prepared.dropped)
        handle.open(prepared)
        self._tell(handle, prepared, time.monotonic() - started_s)
        self._on_loaded(handle, promised_bytes(self._handles))

    def _tell(self, handle: ModelHandle, prepared: Prepared, load_s: float) -> None:
        checkpoint = prepared.model.checkpoint
        log.info(
            "model_loaded",
            slot=self._slot,
            model=prepared.model.name,
            task=prepared.model.task,
            device=str(checkpoint.device),
            dtype=str(checkpoint.dtype).removeprefix("torch."),
            quantization=prepared.settings.quantization,
            context_tokens=prepared.model.context_tokens,
            engine=prepared.engine_name,
            dropped=list(prepared.dropped),
            compiled=prepared.is_compiled,
            load_s=round(load_s, 2),
            check_s=round(prepared.check_s, 2),
        )

    def _unload(self, handle: ModelHandle, reason: str) -> bool:
        """Take the model out of memory; False where somebody began to use it."""
        prepared = handle.close()
        if prepared is None:
            return False
        prepared.model.forget_weights()
        del prepared
        give_back(self._device)
        self._metrics.count_unload(handle.name, reason)
        log.info("model_unloaded", slot=self._slot, model=handle.name, reason=reason)
        return True


def _share(progress: Callable[[float], None], index: int, count: int, share: float) -> None:
    """Tell ``progress`` how far all loads are, of which the one of this index is as far as ``share``."""
    progress((index + share) / count)
