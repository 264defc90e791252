"""What a worker, a server and a model can be said to be: one definition for board, engine, answers and OpenAPI."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, get_args

# draining: takes nothing new and finishes what runs.
WorkerState = Literal["loading", "ready", "draining", "failed"]
WORKER_STATES: tuple[WorkerState, ...] = get_args(WorkerState)
# Which state describes a server whose slots differ: the first that any live slot is in.
PRECEDENCE: tuple[WorkerState, ...] = ("ready", "loading", "draining", "failed")
# Is told a worker's state and the progress of its load, 0 to 1.
OnState = Callable[[WorkerState, float], None]

# failed: the last load on demand did; the next request tries again.
ModelState = Literal["unloaded", "loading", "loaded", "failed"]
# The way that a loaded model is run, from the fastest down; encoders have one of their own.
EngineName = Literal["mixed", "batched", "serial", "encoder"]
# Whose layout the tensors of a checkpoint have that was quantised before it was published.
QuantizedBy = Literal["awq", "gptq", "compressed-tensors", "fp8", "bitsandbytes", "mxfp4"]
# How a model's weights came.
WeightFormat = Literal["safetensors", "gguf", "awq", "gptq", "compressed-tensors", "fp8", "bitsandbytes", "mxfp4"]


def overall_state(states: Collection[WorkerState]) -> WorkerState:
    """The server's state; with no live worker it is loading, since the master starts them again."""
    return next((state for state in PRECEDENCE if state in states), "loading")
