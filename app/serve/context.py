"""What one worker process consists of; made in ``post_fork``, read by the WSGI application.

The inference object is described by the part of it that the processes' room uses, so that this
room imports neither the engine nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from app.core.errors import RequestError, StartError
    from app.core.metrics import Metrics
    from app.core.settings import Settings
    from app.serve.board.admission import Admission
    from app.serve.board.slot_board import SlotBoard


class InferenceHandle(Protocol):
    """The inference thread as seen from the worker's main thread."""

    def start(self) -> None:
        """Start the thread: it loads the model, warms up and serves. Returns at once."""

    def drain(self) -> None:
        """Take no new jobs; fail the waiting ones with ``ShuttingDownError``; running ones go on."""

    def cancel_all(self, error: RequestError) -> None:
        """Fail every job, running or waiting, before its next token."""

    def load_failure(self) -> StartError | None:
        """Why the last attempt to load failed; None while loading or ready. The thread itself
        tries again after a growing pause."""

    def start_anew(self) -> None:
        """The process did not run for a while: measure from now on what must not take too long."""

    def defect(self) -> str | None:
        """Why this process must be replaced (thread dead, stalled, load too long, device
        poisoned), or None. Cheap: asked about once a second."""


def _own_metrics() -> Metrics:
    # The master imports this module, and prometheus_client must not be imported before its folder is made.
    from app.core.metrics import Metrics

    return Metrics()


@dataclass
class WorkerContext:
    """One worker: its slot, its view of the board, its inference thread, what it counts.

    ``slot`` is None only while all slots are taken (after HUP, until the old workers are gone);
    such a worker is not ready and admits nothing.
    """

    settings: Settings
    slot: int | None
    board: SlotBoard
    admission: Admission
    inference: InferenceHandle
    metrics: Metrics = field(default_factory=_own_metrics)


_current: WorkerContext | None = None


def set_current(context: WorkerContext) -> None:
    """Remember this process's context; called once, in ``post_fork`` or by the development server."""
    global _current
    _current = context


def current() -> WorkerContext:
    """This process's context. Raises RuntimeError where none was made (e.g. ``--preload``)."""
    if _current is None:
        raise RuntimeError("no worker context: start with gunicorn.conf.py, `forklift serve` or `python wsgi.py`")
    return _current
