"""What a server says of itself in a registry. Nothing of its load: that would be a write per request and reader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app import __version__
from app.client.discovery.server_entry import ServerEntry
from app.core.settings import Settings
from app.core.states import WorkerState, overall_state
from app.core.tasks.task_table import TASKS, can_serve
from app.serve.board.slot_board import SlotState


class Announcement:
    """Of the server of ``server_id``, which is reached by ``url``, and over gRPC by ``grpc``."""

    def __init__(self, settings: Settings, server_id: str, url: str, num_slots: int, grpc: str | None = None):
        self._settings = settings
        self._models = tuple(plan.name for plan in settings.plans)
        self._server_id, self._url, self._grpc = server_id, url, grpc
        self._places = num_slots * settings.max_running + settings.max_queue

    def entry(self, rows: Iterable[SlotState], handles: Iterable[Any]) -> ServerEntry:
        """As things are now."""
        return ServerEntry(
            id=self._server_id,
            http=self._url,
            state=state_of(rows),
            models=self._models,
            tasks=tasks_of(handles),
            places=self._places,
            weight=self._settings.weight,
            zone=self._settings.zone,
            version=__version__,
            grpc=self._grpc,
        )


def state_of(rows: Iterable[SlotState]) -> WorkerState:
    """The state of a server with these slots."""
    return overall_state([row.state for row in rows if row.pid is not None])


def tasks_of(handles: Iterable[Any]) -> tuple[str, ...] | None:
    """What its models can be asked for; None while one of them was never loaded, and its folder says nothing."""
    of_models = [handle.task for handle in handles]
    if not of_models or None in of_models:
        return None
    return tuple(wanted for wanted in TASKS if any(can_serve(task, wanted) for task in of_models))
