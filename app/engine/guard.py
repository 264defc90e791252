"""Runs work on the device so that its failure stays with the requests it was for.

Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from app.core.logs.logging import get_logger
from app.core.logs.tracebacks import OF_TENSORS, for_callers
from app.core.system.native import guarded
from app.core.work.jobs import BaseJob

log = get_logger("engine")
T = TypeVar("T")


class UnsoundLogitsError(Exception):
    """The model gave NaN or infinity for a request."""


class Guard:
    """Catches what forward passes raise. ``poison`` is set once the device itself is unusable.

    ``on_unsound`` is called for each request whose logits were no numbers.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.poison: str | None = None
        self.on_unsound: Callable[[], None] = lambda: None

    def note_unsound(self, job: BaseJob) -> None:
        """The model gave NaN or infinity for ``job``, which is to fail for that."""
        log.error("unsound_logits", request_id=job.request_id)
        self.on_unsound()

    def run(self, jobs: Sequence[BaseJob], work: Callable[[], T]) -> T | None:
        """The result of ``work`` for ``jobs``, or None where it raised (the cause is logged).

        Memory is given back after the ``except`` block: inside it the traceback keeps the tensors
        of the failed pass alive (pytorch issue 18853).
        """
        is_out_of_memory = False
        try:
            with guarded():
                return work()
        except UnsoundLogitsError:
            for job in jobs:
                self.note_unsound(job)
        except Exception as error:
            with for_callers(OF_TENSORS):
                log.exception("inference_failed", request_ids=[job.request_id for job in jobs])
            is_out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory:
                self.poison = str(error).splitlines()[0]
        if is_out_of_memory:
            self.give_back()
        return None

    def give_back(self) -> None:
        """Let other processes have what torch's allocator holds and nobody uses; the C library does so by itself."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
