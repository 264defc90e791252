"""Faults that a test can order in the real engine, by writing one word to the file FAULT_FILE.

``slow`` stretches every decoding step for as long as the word stands. The others happen once, at the
third token: ``raise``, ``memory``, ``device``, ``die``, ``stall``. ``hang`` stops the next load.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP_S = 0.05
FOREVER_S = 3600.0


class ThreadDeath(BaseException):
    """Nothing in the engine expects this."""


class Faults:
    """Wraps what a worker makes its inference thread with."""

    def __init__(self) -> None:
        self._file = Path(os.environ["FAULT_FILE"])
        self._num_decodes = 0

    def make(self, make_inference: Callable[..., Any]) -> Callable[..., Any]:
        def make(settings: Any, slot: int, on_state: Callable[[Any, float], None], metrics: Any) -> Any:
            def watched(state: Any, progress: float) -> None:
                on_state(state, progress)
                self._on_state(state, progress)

            return make_inference(settings, slot, watched, metrics)

        return make

    def _on_state(self, state: str, progress: float) -> None:
        if state == "loading" and progress > 0 and self._take("hang"):
            time.sleep(FOREVER_S)
        if state == "ready":
            self._wrap_decode()

    def _wrap_decode(self) -> None:
        from app.engine.runners.eager import EagerRunner

        decode = EagerRunner.decode

        def faulty(*args: Any) -> Any:
            self._before_decode()
            return decode(*args)

        EagerRunner.decode = faulty  # type: ignore[method-assign]

    def _before_decode(self) -> None:
        word = self._file.read_text() if self._file.exists() else ""
        if word == "slow":
            time.sleep(STEP_S)
        # The first token comes from the prompt's pass, the second from the first decoding.
        self._num_decodes = self._num_decodes + 1 if word in HAPPENS else 0
        if self._num_decodes == 2:
            self._take(word)
            HAPPENS[word]()

    def _take(self, word: str) -> bool:
        """Whether this was ordered; then it happens once."""
        if not self._file.exists() or self._file.read_text() != word:
            return False
        self._file.unlink()
        return True


def _raise() -> None:
    raise RuntimeError("the model raises")


def _memory() -> None:
    import torch

    raise torch.OutOfMemoryError("simulated")


def _device() -> None:
    import torch

    raise torch.AcceleratorError("simulated device assert")


def _die() -> None:
    raise ThreadDeath


HAPPENS: dict[str, Callable[[], None]] = {
    "raise": _raise,
    "memory": _memory,
    "device": _device,
    "die": _die,
    "stall": lambda: time.sleep(FOREVER_S),
}
