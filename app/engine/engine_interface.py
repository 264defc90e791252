"""What the inference thread drives: jobs go into an engine, and steps bring them forward.

The one interface of all engines; what only some of them have is an attribute of all. Those that keep nothing between
two pieces of work share ``QueuedEngine``.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol

import torch

from app.core.errors import RequestError
from app.engine.generation.waiting import AnyJob, WaitingJobs
from app.engine.guard import Guard
from app.engine.kv.cache import KVCache


class Engine(Protocol):
    """``add`` takes the jobs of the model's own task: `http` makes no others."""

    guard: Guard

    @property
    def cache(self) -> KVCache | None:
        """The KV cache; None where there is none, or transformers manages it."""
        ...

    @property
    def has_work(self) -> bool: ...
    def add(self, job: Any) -> None: ...
    def step(self, *, is_shared: bool = False) -> None:
        """Bring the jobs forward; ``is_shared``: other models wait for the step, which is to be short then."""
        ...

    def rest(self, now_s: float) -> float | None:
        """Give memory back that was not needed for long; seconds until there may be more, None: never while idle."""
        ...

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        ...

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        ...


class QueuedEngine(Generic[AnyJob]):
    """Jobs that wait on a model of ``device``; subclasses start them in their ``step``."""

    # None of our own: transformers manages the model's, where it has one.
    cache: None = None

    def __init__(self, device: torch.device):
        self.guard = Guard(device)
        self._waiting = WaitingJobs[AnyJob]()

    def add(self, job: AnyJob) -> None:
        """Queue ``job``, first come first served."""
        self._waiting.add(job)

    def rest(self, now_s: float) -> float | None:
        """Between two pieces of work nothing is kept."""
        return None

    def fail_waiting(self, error: RequestError) -> None:
        """End every job that has not started."""
        self._waiting.fail_all(error)
