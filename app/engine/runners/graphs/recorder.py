"""Records the work of a pass once, to be repeated without Python: as a graph of CUDA, on a GPU.

Elsewhere ``OpRecorder`` stands in for it, which records the same work and refuses what a graph could not hold.
Inference thread only; knows neither models nor caches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from app.models.checkpoint.device_memory import free_bytes

Work = Callable[[], torch.Tensor]
Outcome = Literal["recorded", "failed", "wrong", "dropped"]
# Passes on a stream of their own before one is recorded: kernels are loaded, and libraries take their memory.
NUM_WARM_UPS = 2
# Of the memory that is free when the first pass is recorded.
MEMORY_SHARE = 0.1


@dataclass(frozen=True)
class FixedPass:
    """One step in a shape that it shares with others (``key``), on memory that stays where it is.

    ``fill`` puts the step's numbers there, ``blank`` such as change nothing that anybody reads; ``run`` computes logits
    from what is there, and does nothing else. ``compiled`` does the same by code that is made at the first call.
    """

    key: Hashable
    fill: Callable[[], None]
    blank: Callable[[], None]
    run: Work
    compiled: Work | None = None


class Recording(Protocol):
    """What was recorded; ``output`` lies in memory of its own, which each replay writes anew.

    ``num_bytes`` is what it took of the device's memory.
    """

    output: torch.Tensor
    num_bytes: int

    def replay(self) -> None: ...


class Recorded(Protocol):
    """Steps that are recorded: ``failure`` is what was first wrong with one, ``on_outcome`` hears of each."""

    failure: str | None
    on_outcome: Callable[[Outcome], None]

    def __len__(self) -> int: ...


class Recorder(Protocol):
    """All recordings together may take ``most_bytes``."""

    most_bytes: int

    def warm_up(self, work: Work) -> torch.Tensor:
        """Do the work as often as it takes before it can be recorded; what it gave."""
        ...

    def record(self, work: Work) -> Recording:
        """Raises where the work cannot be recorded."""
        ...

    def start_anew(self) -> None:
        """Share nothing with earlier recordings: they are gone, or the last one failed."""
        ...

    def wait(self) -> None:
        """Return when all that was launched is done."""
        ...


class CudaRecording:
    """A captured graph."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: torch.Tensor, num_bytes: int):
        self._graph, self.output, self.num_bytes = graph, output, num_bytes

    def replay(self) -> None:
        self._graph.replay()


class CudaRecorder:
    """Captures on a side stream, all graphs in one pool of memory: no two of them run at a time.

    What a graph gave is read before another one is replayed (``Runner.decode``), so that sharing the pool is safe.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.most_bytes = int(MEMORY_SHARE * free_bytes(device))
        self.start_anew()

    def start_anew(self) -> None:
        # None of the graphs that go runs any more.
        torch.cuda.synchronize(self._device)
        self._stream = torch.cuda.Stream(self._device)
        self._pool = torch.cuda.graph_pool_handle()

    def wait(self) -> None:
        torch.cuda.synchronize(self._device)

    def warm_up(self, work: Work) -> torch.Tensor:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(NUM_WARM_UPS):
                output = work()
        current.wait_stream(self._stream)
        output.record_stream(current)
        return output

    def record(self, work: Work) -> Recording:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(self._device)
        with (
            # A capture that fails leaves ``torch.cuda.graph`` before it has put the stream back (torch 2.13).
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            # Other threads of the worker may ask the driver for something meanwhile.
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            output = work()
        return CudaRecording(graph, output, max(torch.cuda.memory_reserved(self._device) - before, 0))
