"""Compiled steps without a compiler: the code that would be compiled, run as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from app.models.compiled.compiled_step import CompiledStep
from app.models.compiled.step_graph import Head, Parts, Span

NUM_SHARED = 5


class Uncompiled:
    """A traced function's code, given its inputs laid flat; ``calls`` counts how often it ran."""

    def __init__(self, forward: Callable[..., torch.Tensor], lengths: list[int], num_shared: int):
        self._forward, self._lengths, self._num_shared = forward, lengths, num_shared
        self.calls = 0

    def run(self, inputs: list[torch.Tensor], /) -> list[torch.Tensor]:
        self.calls += 1
        shared, rest = inputs[: self._num_shared], inputs[self._num_shared :]
        groups = []
        for length in self._lengths:
            groups.append(rest[:length])
            rest = rest[length:]
        assert not rest
        return [self._forward(*shared, groups if self._num_shared > 1 else groups[0])]


def uncompiled_step(parts: Parts, change: Callable[[torch.Tensor], torch.Tensor] = lambda out: out) -> CompiledStep:
    """The step of ``parts``; ``change`` is done to what each span gives."""
    span, head = Span(parts.shape, parts.activation), Head(parts.shape)
    lengths = [len(parts.layers[0]) + 2] * parts.shape.layers_per_call
    layers = Uncompiled(lambda *inputs: change(span(*inputs)), lengths, NUM_SHARED)
    return CompiledStep(layers, Uncompiled(head, [len(parts.head)], 1), parts)
