"""Moves the weights that compiled passes read, one after the other, into memory of large pages.

A pass of one row reads all weights and little else, and finding small pages takes a third of its time on a virtual
machine (docs/performance.md). Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

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
    """Have the linear layers of fused layers and the output layer in large pages; ``pause`` behind some each.

    The model computes the same at any time. Only a weight at a time is in memory twice; whoever holds a view of one
    keeps the old memory.
    """
    weights = list(weights_in(checkpoint))
    if lie_together(weights):
        return
    room = torch.frombuffer(large_buffer(sum(map(aligned_bytes, weights))), dtype=torch.uint8)
    place, paused = -room.data_ptr() % PAGE_BYTES, 0
    for weight in weights:
        moved = room[place : place + weight.nbytes].view(weight.dtype).view(weight.shape)
        weight.data = moved.copy_(weight)
        place += aligned_bytes(weight)
        del moved
        if place - paused >= PIECE_BYTES:
            pause()
            paused = place
    trim_heap()


def weights_in(checkpoint: Checkpoint) -> Iterator[torch.Tensor]:
    """Each once: a tied one belongs to two layers."""
    layers: list[nn.Module] = linear_parts(list(checkpoint.model.base_model.layers))
    head = checkpoint.model.get_output_embeddings()
    found = [weight for layer in [*layers, head] for weight in (*layer.parameters(), *layer.buffers())]
    yield from {id(one): one for one in found if one.nbytes >= LEAST_BYTES and one.is_contiguous()}.values()


def lie_together(weights: list[torch.Tensor]) -> bool:
    """Whether they have been moved already: then all are parts of one piece of memory."""
    return len({one.untyped_storage().data_ptr() for one in weights}) <= 1


def aligned_bytes(weight: torch.Tensor) -> int:
    """What it takes in a row of weights."""
    return -(-weight.nbytes // ALIGNMENT) * ALIGNMENT
