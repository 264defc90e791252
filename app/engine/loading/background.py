"""The packages that one worker wants while it serves: asked for at a load, used once they are there.

Inference thread, but for the thread that waits for packages.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from app.core.logs.logging import get_logger
from app.core.metrics import Metrics
from app.engine.generation.batched import BatchedEngine
from app.engine.loading.change_over import ChangeOver, Check
from app.engine.loading.encoder_change import EncoderChange
from app.engine.loading.handle import ModelHandle
from app.engine.loading.prepared import Prepared
from app.engine.runners.mixed import MixedRunner
from app.engine.runners.windowed import WindowedRunner
from app.models.compiled.compiled_step import is_missing, may_lie_plain
from app.models.compiled.inductor import has_compiler
from app.models.compiled.package_facts import AnyShape
from app.models.compiled.package_maker import Wish, has_made
from app.models.compiled.steps.step_graph import model_shape
from app.models.encoders.encoder_code import layers_shape
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.unpadded import is_unpadded
from app.models.text_model import TextModel
from app.models.weights.packing import is_packed
from app.models.weights.quantization import model_bytes

log = get_logger("engine")


@dataclass(frozen=True)
class Wanted:
    """A package for a model as it was loaded, which it does not keep in memory."""

    handle: ModelHandle
    loaded: weakref.ref[Prepared]
    wish: Wish

    @property
    def prepared(self) -> Prepared | None:
        """The model, while it is loaded as it was."""
        prepared = self.loaded()
        return prepared if prepared is self.handle.prepared else None


class BackgroundCompiling:
    """Of one worker; ``wake`` may be called by any thread, to have ``tend`` called. ``check`` is that of a load."""

    def __init__(self, metrics: Metrics, wake: Callable[[], None], check: Check):
        self._metrics, self._wake, self._check = metrics, wake, check
        self._wanted: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[tuple[Wanted, str | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._changing: tuple[Wanted, ChangeOver | EncoderChange] | None = None

    def consider(self, handle: ModelHandle, promised_bytes: int) -> None:
        """The model of ``handle`` was loaded: have its package made where it can use one and none is there."""
        prepared = handle.prepared
        if prepared is None:
            return
        if prepared.is_compiled:
            self._metrics.count_compiled_step(handle.name, "used")
        elif (wish := wish_of(prepared, promised_bytes)) is not None:
            handle.is_compiling = True
            self._wanted.put(Wanted(handle, weakref.ref(prepared), wish))
            if self._thread is None:
                self._thread = threading.Thread(target=self._make, name="compiling", daemon=True)
                self._thread.start()

    @property
    def is_changing(self) -> bool:
        """Whether ``tend`` is to be called soon, as it has begun something."""
        return self._changing is not None

    def tend(self) -> None:
        """A piece of a change to a package that is there; about as long as a pass."""
        if self._changing is None and not self._begin():
            return
        assert self._changing is not None
        wanted, change = self._changing
        prepared = wanted.prepared
        if prepared is None:
            self._changing, wanted.handle.is_compiling = None, False
            change.abandon()
        elif not change.advance():
            self._changing = None
            self._settle(wanted.handle, prepared, change)

    def _begin(self) -> bool:
        """Begin with a package that has come; whether there is one."""
        try:
            wanted, failure = self._ended.get_nowait()
        except queue.Empty:
            return False
        prepared = wanted.prepared
        wanted.handle.is_compiling = prepared is not None and failure is None
        if prepared is None:
            return False
        if failure is not None:
            self._metrics.count_compiled_step(wanted.handle.name, "failed")
            log.warning("package_not_made", model=wanted.handle.name, reason=failure)
            return False
        self._metrics.count_compiled_step(wanted.handle.name, "made")
        self._changing = wanted, self._change_of(prepared)
        return True

    def _change_of(self, prepared: Prepared) -> ChangeOver | EncoderChange:
        engine, model = prepared.engine, prepared.model
        if isinstance(model, EncoderModel):
            return EncoderChange(model, prepared.settings)
        assert isinstance(engine, BatchedEngine) and isinstance(model, TextModel)
        return ChangeOver(model, prepared.settings, engine, self._check)

    def _settle(self, handle: ModelHandle, prepared: Prepared, change: ChangeOver | EncoderChange) -> None:
        """Say what has become of the model."""
        handle.is_compiling = False
        name = handle.name
        if change.reason is not None:
            log.info("compiled_step_not_used", model=name, reason=change.reason)
        elif change.failure is not None:
            log.warning("step_failed_check", model=name, step="compiled", reason=change.failure)
            self._metrics.count_dropped(name, "compiled")
            handle.note(replace(prepared, dropped=(*prepared.dropped, "compiled")))
        else:
            log.info("changed_to_compiled_step", model=name)
            self._metrics.count_compiled_step(name, "used")
            handle.note(replace(prepared, is_compiled=True))

    def _make(self) -> None:
        """The thread: one package after the other."""
        while True:
            wanted = self._wanted.get()
            failure: str | None = "the thread that waits for it has failed"
            try:
                failure = has_made(wanted.wish, is_wanted=partial(_is_loaded, wanted))
            except Exception:
                log.exception("compiling_raised", model=wanted.handle.name)
            self._ended.put((wanted, failure))
            del wanted
            self._wake()


def _is_loaded(wanted: Wanted) -> bool:
    return wanted.prepared is not None


def wish_of(prepared: Prepared, promised_bytes: int) -> Wish | None:
    """What to make for a model that is served eagerly; None where it could use nothing, or has something already."""
    model, settings = prepared.model, prepared.settings
    if settings.compile != "auto" or "compiled" in prepared.dropped:
        return None
    # No fault: most images have none, and the load has said that there is no package.
    if not has_compiler():
        return None
    shape = wished_shape(prepared)
    if shape is None or not is_missing(shape, settings):
        return None
    return Wish(settings, shape, model_bytes(model.checkpoint.model), promised_bytes)


def wished_shape(prepared: Prepared) -> AnyShape | None:
    """Of a model that could use a package; None of others."""
    model, settings, engine = prepared.model, prepared.settings, prepared.engine
    if isinstance(model, EncoderModel):
        layers = layers_shape(model.checkpoint.model)
        return None if isinstance(layers, str) or not is_unpadded(model.checkpoint.model) else layers
    if not isinstance(model, TextModel) or not isinstance(engine, BatchedEngine):
        return None
    shape = model_shape(model.checkpoint)
    if type(engine.runner) not in (MixedRunner, WindowedRunner) or isinstance(shape, str):
        return None
    return None if not may_lie_plain(shape, settings) and is_packed(model.checkpoint) else shape
