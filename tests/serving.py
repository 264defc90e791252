"""One model behind a stand-in for the inference thread, as the routes see it."""

from __future__ import annotations

from typing import Any

from app.core.errors import LoadingError
from app.core.settings import Settings


class OneHandle:
    """``inference`` has ``model``, which may change, ``kv_memory`` and ``submit``; it may name its ``engine_name``."""

    is_on_demand = False
    is_compiling = False
    parent = None

    def __init__(self, inference: Any, settings: Settings):
        self._inference = inference
        self.settings = settings
        self.name = settings.model_name

    @property
    def model(self) -> Any:
        return self._inference.model

    def adapter_of(self, _model: Any) -> None:
        return None

    @property
    def kv_memory(self) -> Any:
        return self._inference.kv_memory

    @property
    def engine_name(self) -> Any:
        return self.model and getattr(self._inference, "engine_name", "mixed")

    @property
    def dropped(self) -> Any:
        return self.model and list(getattr(self._inference, "dropped", ()))

    @property
    def is_compiled(self) -> Any:
        return self.model and False

    @property
    def quantization(self) -> str:
        return self.settings.quantization

    @property
    def num_draft_tokens(self) -> int:
        return self.settings.num_draft_tokens

    @property
    def task(self) -> Any:
        return self.model and self.model.task

    @property
    def state(self) -> str:
        return "loaded" if self.model else "loading"

    def lease(self) -> OneLease:
        if self.model is None:
            raise LoadingError("the model is still loading", retry_after_s=5)
        return OneLease(self._inference)


class OneLease:
    """Granted at once."""

    def __init__(self, inference: Any):
        self._inference = inference

    def wait(self, timeout_s: float) -> Any:
        return self._inference.model

    def submit(self, job: Any) -> None:
        self._inference.submit(job)

    def release(self) -> None:
        pass
