"""Stands in for graphs of CUDA where there is no GPU: records the operations of a pass, and repeats them.

A replay runs the same operations on the same memory, and nothing of the Python around them, so that what was a number
or a branch while it was recorded stays that, as in a graph. Refused is what capture does not allow: to read from the
device, to bring numbers from the host, results whose shape depends on numbers, random numbers. Slower than the pass
itself: it is there to prove. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Each recording keeps every result of its pass.
MOST_BYTES = 1 << 30
REFUSED_TAGS = {
    torch.Tag.data_dependent_output: "reads a number from the device",
    torch.Tag.dynamic_output_shape: "has a result whose shape depends on numbers",
    torch.Tag.nondeterministic_seeded: "draws random numbers",
}
FROM_HOST = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift.default, torch.ops.aten.lift_fresh_copy.default)


class UncapturableError(RuntimeError):
    """A pass does what no graph can hold."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, and its results that lie in memory of their own."""

    run: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    results: tuple[torch.Tensor | None, ...]

    def repeat(self) -> None:
        found = tree_leaves(self.run(*self.args, **self.options))
        for result, new in zip(self.results, found, strict=True):
            if result is not None:
                result.copy_(new)


class OpRecording:
    """The operations of a pass; ``output`` is what they wrote last."""

    def __init__(self, calls: list[Call], output: torch.Tensor):
        self._calls, self.output = calls, output
        kept = [result for call in calls for result in call.results if result is not None]
        self.num_bytes = sum(result.numel() * result.element_size() for result in kept)
        self._places = [(tensor, tensor.data_ptr()) for call in calls for tensor in tensors_of(call)]

    def replay(self) -> None:
        for tensor, place in self._places:
            if tensor.data_ptr() != place:
                raise UncapturableError("memory that was recorded has moved")
        for call in self._calls:
            call.repeat()


class OpRecorder:
    """Records operations as they run."""

    def __init__(self) -> None:
        self.most_bytes = MOST_BYTES

    def start_anew(self) -> None:
        """Recordings share nothing here."""

    def wait(self) -> None:
        """What was called is done."""

    def warm_up(self, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        return work()

    def record(self, work: Callable[[], torch.Tensor]) -> OpRecording:
        with _told_as_capture(), Noting() as noting:  # type: ignore[no-untyped-call]
            output = work()
        return OpRecording(noting.calls, output)


@contextmanager
def _told_as_capture() -> Iterator[None]:
    """Models ask torch whether a stream is captured, and leave out checks that read tokens on the host."""
    asked = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = asked


class Noting(TorchDispatchMode):
    """Notes each operation inside the block. Raises ``UncapturableError`` at one that no graph can hold."""

    # FlexAttention is one: a kernel, for what is recorded.
    supports_higher_order_operators = True

    @cached_property
    def calls(self) -> list[Call]:
        """What was noted so far."""
        return []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            result = func(*args, **options)
            own = tuple(one if is_tensor(one) else None for one in tree_leaves(result))
            self.calls.append(Call(func, args, options, own))
            return result
        # Without autograd torch hands over operations that are made of others: those are what is recorded.
        with self:
            found = func.decompose(*args, **options)
        if found is not NotImplemented:
            return found
        refuse(func, args, options)
        result = func(*args, **options)
        shared = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, options)) if is_tensor(tensor)}
        leaves = tree_leaves(result)
        own = tuple(
            one if is_tensor(one) and one.untyped_storage().data_ptr() not in shared else None for one in leaves
        )
        if func.is_view and not any(one is not None for one in own):
            return result
        self.calls.append(Call(func, args, options, own))
        return result


def refuse(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Raise ``UncapturableError`` where a graph could not hold the operation."""
    reason = next((text for tag, text in REFUSED_TAGS.items() if tag in func.tags), None)
    if any(argument.name == "dropout_p" for argument in func._schema.arguments):
        # Attention is tagged for what it drops in training.
        reason = None
    # A lone number is handed to kernels by value.
    if func in FROM_HOST and args[0].ndim:
        reason = "brings numbers from the host"
    if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
        # Tagged for masks alone: what is chosen by numbers of places has as many results as those.
        is_mask = any(is_tensor(one) and one.dtype in (torch.bool, torch.uint8) for one in args[1])
        reason = "chooses by a mask, so that a shape depends on numbers" if is_mask else None
    if len({one.device for one in tree_leaves((args, options)) if is_tensor(one) and one.ndim}) > 1:
        reason = "moves numbers between devices"
    if reason is not None:
        raise UncapturableError(f"{func} {reason}")


def tensors_of(call: Call) -> Iterator[torch.Tensor]:
    return (one for one in tree_leaves((call.args, call.options)) if is_tensor(one))


def is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
