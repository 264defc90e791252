"""The adapters in service, as this worker sees them. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.errors import InvalidParameterError, ModelNotFoundError
from app.core.system.adapter_folders import is_adapter, stamp_of
from app.core.work.adapters import AdapterName
from app.serve.board.adapter_list import AdapterList
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.adapter_handle import AdapterHandle
    from app.engine.loading.handle import ModelHandle


class AdapterService:
    """Finds adapters by name, and changes the list of all workers."""

    def __init__(self, context: WorkerContext):
        self._context = context
        self._handles: dict[AdapterName, AdapterHandle] = {}
        self._told: dict[str, dict[str, AdapterName]] = {}

    @property
    def handles(self) -> list[AdapterHandle]:
        """A handle for each adapter in service, in the order of models and names."""
        shared = self._context.adapters
        if shared is None:
            return []
        told = shared.read()
        if told is not self._told:
            self._told = told
            self._forget(told)
        return [self._handle(base, adapter) for base in self._bases() for adapter in self._sorted(told, base.name)]

    def find(self, name: str) -> AdapterHandle | None:
        """The adapter of this name."""
        return next((handle for handle in self.handles if handle.name == name), None)

    def names_of(self, base: ModelHandle) -> list[str] | None:
        """The adapters of a model; None where it takes none."""
        shared = self._context.adapters
        if shared is None or base.settings.adapters is None:
            return None
        return [adapter.name for adapter in self._sorted(shared.read(), base.name)]

    def load(self, name: str, path: str | None, model: str | None, *, may_replace: bool) -> str:
        """Put the adapter of this name into service on all workers; its model's name. Raises a ``RequestError``."""
        base = self._base_of(name, model)
        folder = Path(str(base.settings.adapters)) / name
        if path is not None and Path(path).resolve() != folder.resolve():
            text = "lora_path: is not the folder of that name in FORKLIFT_ADAPTERS"
            raise InvalidParameterError(text, param="lora_path")
        served = self.find(name)
        if served is not None and not may_replace:
            text = f"lora_name: {name} is served already: load_inplace reads it anew"
            raise InvalidParameterError(text, param="lora_name")
        if served is not None and served.base.name != base.name:
            text = f"lora_name: {name} is served already, on the model {served.base.name}"
            raise InvalidParameterError(text, param="lora_name")
        self._shared.add(base.name, name, str(folder), stamp_of(folder))
        return base.name

    def unload(self, name: str) -> str:
        """Take the adapter out of service on all workers; its model's name. Raises ``ModelNotFoundError``."""
        handle = self.find(name)
        if handle is None:
            raise ModelNotFoundError(f"there is no adapter {name!r} in service", param="lora_name")
        self._shared.remove(handle.base.name, name)
        return handle.base.name

    def _base_of(self, name: str, model: str | None) -> ModelHandle:
        """The model in whose folder of adapters there is one of this name."""
        if any(name == handle.name for handle in self._context.inference.handles):
            raise InvalidParameterError(f"lora_name: {name} is a model's name", param="lora_name")
        for base in self._bases():
            is_meant = model in (None, base.name)
            if is_meant and is_adapter(str(base.settings.adapters), name):
                return base
        raise ModelNotFoundError(f"there is no adapter of the name {name!r} in FORKLIFT_ADAPTERS", param="lora_name")

    @property
    def _shared(self) -> AdapterList:
        shared = self._context.adapters
        assert shared is not None, "a model that takes adapters makes the list"
        return shared

    def _bases(self) -> Iterator[ModelHandle]:
        return (handle for handle in self._context.inference.handles if handle.settings.adapters is not None)

    @staticmethod
    def _sorted(told: dict[str, dict[str, AdapterName]], model: str) -> Iterable[AdapterName]:
        return sorted(told.get(model, {}).values(), key=lambda adapter: adapter.name)

    def _handle(self, base: ModelHandle, adapter: AdapterName) -> AdapterHandle:
        # Here, since only a server with adapters has this part of the engine.
        from app.engine.loading.adapter_handle import AdapterHandle

        return self._handles.setdefault(adapter, AdapterHandle(base, adapter))

    def _forget(self, told: dict[str, dict[str, AdapterName]]) -> None:
        """Let go of what is out of service."""
        present = {adapter for adapters in told.values() for adapter in adapters.values()}
        # A list first: other threads add to what is gone through here.
        self._handles = {adapter: handle for adapter, handle in list(self._handles.items()) if adapter in present}
        for base in self._bases():
            model = base.model
            if model is not None and model.task == "generate" and model.adapters is not None:
                model.adapters.forget_other_than(present)
