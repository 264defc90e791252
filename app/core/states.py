"""What a worker and a model can be said to be: one definition for board, engine, answers and OpenAPI. Types only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

# draining: takes nothing new and finishes what runs.
WorkerState = Literal["loading", "ready", "draining", "failed"]
WORKER_STATES: tuple[WorkerState, ...] = get_args(WorkerState)
# Is told a worker's state and the progress of its load, 0 to 1.
OnState = Callable[[WorkerState, float], None]

# failed: the last load on demand did; the next request tries again.
ModelState = Literal["unloaded", "loading", "loaded", "failed"]
# The way that a loaded model is run, from the fastest down; encoders have one of their own.
EngineName = Literal["mixed", "batched", "serial", "encoder"]
