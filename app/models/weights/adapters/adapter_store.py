"""Adapters in memory: read once for all requests that name them, the least recently used ones forgotten.

HTTP threads read, so that nobody who decodes waits for a disk; the inference thread uses what a job brings along. What
runs keeps its adapter, whatever becomes of it here. Knows no torch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from app.core.errors import AdapterFailedError, ModelLoadError
from app.core.logs.logging import get_logger
from app.core.system.adapter_folders import stamp_of
from app.core.work.adapters import Adapter, AdapterName
from app.models.folder.adapter_folder import read_form, read_parts

log = get_logger("models")


class AdapterStore:
    """Adapters of one model, whose layers have inputs and outputs as in ``shapes``; ``max_bytes`` of them stay.

    ``largest``: the largest number of the type that they are computed in.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], max_bytes: int, largest: float):
        self._shapes = shapes
        self._largest = largest
        self._max_bytes = max_bytes
        self._held: OrderedDict[AdapterName, Adapter] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """What those that are held take."""
        with self._lock:
            return sum(adapter.num_bytes for adapter in self._held.values())

    def get(self, name: AdapterName) -> Adapter:
        """The adapter, read where it is not held. Raises ``AdapterFailedError``; the log has the cause."""
        if (found := self._find(name)) is not None:
            return found
        with self._reading:
            if (found := self._find(name)) is not None:
                return found
            try:
                adapter = self._read(name)
            except ModelLoadError as error:
                log.warning("adapter_failed", adapter=name.name, error=str(error))
                raise AdapterFailedError(name.name) from None
            self._hold(adapter)
            return adapter

    def forget_other_than(self, present: set[AdapterName]) -> None:
        """Let go of those that were taken out of service, or replaced."""
        with self._lock:
            for name in [name for name in self._held if name not in present]:
                self._held.pop(name).is_gone = True

    def _find(self, name: AdapterName) -> Adapter | None:
        with self._lock:
            found = self._held.get(name)
            if found is not None:
                self._held.move_to_end(name)
            return found

    def _read(self, name: AdapterName) -> Adapter:
        self._require_same(name)
        form = read_form(Path(name.folder))
        for layer, shape in form.shapes.items():
            if layer not in self._shapes:
                raise ModelLoadError(f"the adapter {form.folder} changes {layer[:100]}, which no layer of the model is")
            if self._shapes[layer] != shape:
                raise ModelLoadError(f"the adapter {form.folder} is another model's: {layer[:100]} has other sizes")
        if form.num_bytes > self._max_bytes:
            most = f"FORKLIFT_ADAPTERS_MAX_BYTES is {self._max_bytes}"
            raise ModelLoadError(f"the adapter {form.folder} takes {form.num_bytes} bytes, {most}")
        parts = read_parts(form, self._largest)
        self._require_same(name)
        log.info("adapter_loaded", adapter=name.name, layers=len(parts), bytes=form.num_bytes)
        return Adapter(name, parts)

    @staticmethod
    def _require_same(name: AdapterName) -> None:
        """Every worker, whenever it reads, is to have the same numbers. Raises ``ModelLoadError``."""
        if name.stamp and stamp_of(name.folder) != name.stamp:
            raise ModelLoadError(f"the adapter {name.folder} was changed since it was put into service: load it anew")

    def _hold(self, adapter: Adapter) -> None:
        with self._lock:
            self._held[adapter.name] = adapter
            while sum(one.num_bytes for one in self._held.values()) > self._max_bytes and len(self._held) > 1:
                name, oldest = self._held.popitem(last=False)
                oldest.is_gone = True
                log.info("adapter_dropped", adapter=name.name, bytes=oldest.num_bytes)
