"""What the routes of one worker share; made once by the factory."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import ModelNotFoundError
from app.core.settings import Settings
from app.http.generator import Generator
from app.serve.context import WorkerContext


@dataclass(frozen=True)
class Service:
    """The worker's context, and how this application was configured."""

    context: WorkerContext
    generator: Generator
    ping_interval_s: float
    created_s: int

    @property
    def settings(self) -> Settings:
        return self.context.settings

    def require_model(self, name: str) -> None:
        """Raise ``ModelNotFoundError`` unless ``name`` is the model that is served."""
        if name != self.settings.model_name:
            raise ModelNotFoundError("there is no model of this name; GET /v1/models lists them", param="model")
