"""Moves the weights that compiled passes read, one after the other, into memory of large pages.

A pass of one row reads all weights and little else, and finding small pages takes a third of its time on a virtual
machine (docs/performance.md). Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from app.core.system.memory.heap import trim_heap
from app.core.system.memory.large_pages import PAGE_BYTES, large_buffer
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.steps.step_graph import linear_parts

# Where a weight begins: at a line of the processor's cache.
ALIGNMENT = 64
# Less is read too fast for its pages to matter.
LEAST_BYTES = 1 << 12
# Moved between two pauses: a few milliseconds. A server that changes over looks for its next piece ten times a second.
PIECE_BYTES = 8 << 20


def move_in_pieces(checkpoint: Checkpoint, pause: Callable[[], None]) -> None:
    """Have the linear layers and experts of fused layers, and the output layer, in large pages.

    ``pause`` is called behind some each; the model computes the same at any time. Only a weight at a time is in memory
    twice; whoever holds a view of one keeps the old memory.
    """
    weights = list(weights_in(checkpoint))
    if lie_together(weights):
        return
    room = torch.frombuffer(large_buffer(sum(map(aligned_bytes, weights))), dtype=torch.uint8)
    place, paused = -room.data_ptr() % PAGE_BYTES, 0
    for weight in weights:
        by_place = in_order(weight)
        moved = room[place : place + weight.nbytes].view(weight.dtype).view(by_place.shape)
        step = max(PIECE_BYTES // by_place[0].nbytes, 1)
        for first in range(0, len(by_place), step):
            moved[first : first + step].copy_(by_place[first : first + step])
            place += by_place[first : first + step].nbytes
            if place - paused >= PIECE_BYTES:
                pause()
                paused = place
        weight.data = moved if weight.is_contiguous() else moved.transpose(1, 2)
        place += aligned_bytes(weight) - weight.nbytes
        del moved, by_place
    trim_heap()


def weights_in(checkpoint: Checkpoint) -> Iterator[torch.Tensor]:
    """Each once: a tied one belongs to two layers."""
    layers = list(checkpoint.model.base_model.layers)
    experts = [layer.mlp.experts for layer in layers if layer.pattern.experts is not None]
    parts = [*linear_parts(layers), *experts, checkpoint.model.get_output_embeddings()]
    found = [weight for part in parts for weight in (*part.parameters(), *part.buffers())]
    yield from {id(one): one for one in found if one.nbytes >= LEAST_BYTES and in_order(one).is_contiguous()}.values()


def in_order(weight: torch.Tensor) -> torch.Tensor:
    """As it lies: experts' weights may be named ``(experts, inputs, outputs)`` and lie by output."""
    is_turned = weight.ndim == 3 and not weight.is_contiguous()
    return weight.detach().transpose(1, 2) if is_turned else weight.detach()


def lie_together(weights: list[torch.Tensor]) -> bool:
    """Whether they have been moved already: then all are parts of one piece of memory."""
    return len({one.untyped_storage().data_ptr() for one in weights}) <= 1


def aligned_bytes(weight: torch.Tensor) -> int:
    """What it takes in a row of weights."""
    return -(-weight.nbytes // ALIGNMENT) * ALIGNMENT
