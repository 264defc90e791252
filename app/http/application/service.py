"""What the routes of one worker share; made once by the factory."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.errors import ModelNotFoundError
from app.core.settings import Settings
from app.core.tasks.task_table import Task, can_serve
from app.http.application.request_log import record
from app.http.lora.adapter_service import AdapterService
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle

MAX_LISTED = 10
MAX_SHOWN = 100


@dataclass(frozen=True)
class Service:
    """The worker's context, and how this application was configured."""

    context: WorkerContext
    ping_interval_s: float
    created_s: int
    adapters: AdapterService

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def handles(self) -> Sequence[ModelHandle]:
        """The models, in the order of the settings."""
        return self.context.inference.handles

    def find(self, name: str) -> ModelHandle:
        """The model of this name. Raises ``ModelNotFoundError``."""
        for handle in self.handles:
            if handle.name == name:
                return handle
        if (adapter := self.adapters.find(name)) is not None:
            return adapter
        raise ModelNotFoundError(self._unknown(name), param="model")

    def _unknown(self, name: str) -> str:
        names = [handle.name for handle in (*self.handles, *self.adapters.handles)]
        nearest = difflib.get_close_matches(name[:MAX_SHOWN], names, n=1, cutoff=0.6) if len(names) > 1 else []
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        listed = ", ".join(map(repr, names[:MAX_LISTED])) + (", ..." if len(names) > MAX_LISTED else "")
        return f"there is no model {name[:MAX_SHOWN]!r}; {hint}this server has {listed} (GET /v1/models)"

    def choose(self, name: str | None, task: Task | None, *others: Task) -> ModelHandle:
        """The model that a request means, which its log line will name. Raises ``ModelNotFoundError``.

        Without a name the first one for ``task``, else the first that does it or one of the ``others`` as well; where
        there is none the first, which will refuse.
        """
        if name is not None:
            chosen = self.find(name)
        else:
            able = [one for one in self.handles if task is None or _can_serve_any(one, (task, *others))]
            of_task = [one for one in able if one.task == task]
            chosen = [*of_task, *able, self.handles[0]][0]
        record().model, record().is_model_named = chosen.name, name is not None
        return chosen


def _can_serve_any(handle: ModelHandle, tasks: Sequence[Task]) -> bool:
    return handle.task is not None and any(can_serve(handle.task, task) for task in tasks)
