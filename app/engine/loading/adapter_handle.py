"""A LoRA adapter as a model that requests can name: its base's handle under another name. HTTP threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.errors import UnsupportedParameterError
from app.core.work.adapters import Adapter, AdapterName
from app.engine.loading.handle import ModelHandle

if TYPE_CHECKING:
    from app.engine.checks.features import Model


class AdapterHandle(ModelHandle):
    """``base``'s handle, whose state it shares: there is one model in memory, and one engine."""

    def __init__(self, base: ModelHandle, adapter: AdapterName):
        self.base = base
        self.adapter = adapter

    def __getattr__(self, name: str) -> Any:
        """What the base has: nothing else is set here."""
        return getattr(self.base, name)

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    def parent(self) -> str | None:
        return self.base.name

    def adapter_of(self, model: Model) -> Adapter | None:
        """The adapter, read if it is not in memory. Raises ``AdapterFailedError``."""
        store = model.adapters if model.task == "generate" else None
        if store is None:
            raise UnsupportedParameterError(f"the model {self.base.name} takes no adapters", param="model")
        return store.get(self.adapter)
