"""What one worker process consists of; made in ``post_fork``, read by the WSGI application.

Names the engine's classes to the type checker only: this package imports neither the engine nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from app.core.metrics import Metrics
    from app.core.settings import Settings
    from app.engine.thread.inference import Inference
    from app.serve.board.adapter_list import AdapterList
    from app.serve.board.admission import Admission, ConnectionTicket
    from app.serve.board.slot_board import SlotBoard
    from app.serve.registry.registration import Registration


class Door(Protocol):
    """A way in beside HTTP, with a thread of its own."""

    @property
    def num_calls(self) -> int:
        """What it has in hand."""

    def drain(self) -> None:
        """Take nothing new; what is in hand goes on."""


def _own_metrics() -> Metrics:
    # The master imports this module, and prometheus_client must not be imported before its folder is made.
    from app.core.metrics import Metrics

    return Metrics()


@dataclass
class WorkerContext:
    """One worker: its slot, its view of the board, its inference thread, what it counts.

    ``slot`` is None only while all slots are taken (after HUP, until the old workers are gone);
    such a worker is not ready and admits nothing. ``registration`` is None where no registry is told of the server;
    ``door`` is there where callers also come by another way than HTTP. ``adapters`` are those of all workers;
    None: there are none.
    """

    settings: Settings
    slot: int | None
    board: SlotBoard
    admission: Admission
    inference: Inference
    door: Door | None = field(default=None, init=False)
    metrics: Metrics = field(default_factory=_own_metrics)
    adapters: AdapterList | None = None
    registration: Registration | None = None

    def call_ticket(self) -> ConnectionTicket | None:
        """What a call over gRPC counts as load from now on, until it has a place; None without a slot."""
        from app.serve.board.admission import ConnectionTicket

        if self.slot is None:
            return None
        with self.board.locked() as rows:
            return ConnectionTicket(self.board, rows[self.slot], is_call=True)


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
