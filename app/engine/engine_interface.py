"""What the inference thread drives: jobs go into an engine, and steps bring them forward.

The one interface of the batched engine, the serial one and the encoders' batcher; what only some of them have is an
attribute of all.
"""

from __future__ import annotations

from typing import Any, Protocol

from app.core.errors import RequestError
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
