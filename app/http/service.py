"""What the routes of one worker share; made once by the factory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.errors import ModelNotFoundError
from app.core.model_tables import Task
from app.core.settings import Settings
from app.http.backend import Served, served_by
from app.http.generator import Generator
from app.http.request_log import record
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

    @property
    def served(self) -> Sequence[Served]:
        """The models, in the order of the settings."""
        return served_by(self.context)

    def find(self, name: str) -> Served:
        """The model of this name. Raises ``ModelNotFoundError``."""
        for served in self.served:
            if served.name == name:
                return served
        raise ModelNotFoundError("there is no model of this name; GET /v1/models lists them", param="model")

    def choose(self, name: str | None, task: Task | None) -> Served:
        """The model that a request means, which its log line will name. Raises ``ModelNotFoundError``.

        Without a name the first one for ``task``; where there is none the first, which will refuse.
        """
        if name is not None:
            chosen = self.find(name)
        else:
            of_task = (served for served in self.served if task in (None, served.task))
            chosen = next(of_task, self.served[0])
        record().model = chosen.name
        return chosen
