"""Compiled steps without a compiler: the code that would be compiled, run as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.compiled_step import CompiledStep, RowsCode, codes_of
from app.models.compiled.inductor import ROWS
from app.models.compiled.steps.step_graph import Head, Parts, Span

NUM_SHARED = 6


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


class UncompiledStep(CompiledStep):
    """``calls`` counts its steps, by how many rows they were filled up to."""

    @property
    def calls(self) -> dict[int, int]:
        return {num_rows: self._codes[num_rows].head.calls for num_rows in ROWS if num_rows in self._codes}


def uncompiled_step(
    parts: Parts, change: Callable[[torch.Tensor], torch.Tensor] = lambda out: out, most_rows: int = max(ROWS)
) -> UncompiledStep:
    """The step of ``parts``; ``change`` is done to what each span gives."""
    lengths = [len(parts.layers[0]) + 2] * parts.shape.layers_per_call

    def load(num_rows: int) -> RowsCode:
        span, head = Span(parts.shape, parts.activation, num_rows), Head(parts.shape)
        layers = Uncompiled(lambda *inputs: change(span(*inputs)), lengths, NUM_SHARED)
        return RowsCode(num_rows, layers, Uncompiled(head, [len(parts.head)], 1))

    return UncompiledStep(codes_of(range(1, most_rows + 1), load), parts)


def keep_plain(checkpoint: Checkpoint, *, num_rows: int) -> None:
    """In the place of ``pack``: weights stay as they are, and code that has not all numbers of rows may serve."""
