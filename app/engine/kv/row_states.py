"""The states of one layer that are no keys and values: what a convolution or a recurrence leaves behind, of each row.

A pass works on copies, and what comes of them is put back once the whole pass is through: one that fails half way has
changed nothing, and may be made again. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers.cache_utils import LinearAttentionLayer

# One of a layer's tensors: "conv" or "recurrent", and its number among those of the layer.
Name = tuple[str, int]


class RowStates(LinearAttentionLayer):  # type: ignore[misc, unused-ignore]
    """States of ``num_slots`` sequences; what transformers calls the states are those of the piece that is at work."""

    def __init__(self, num_slots: int, num_states: int):
        super().__init__(number_of_states=num_states)
        self._num_slots = num_slots
        self._buffers: dict[Name, torch.Tensor] = {}
        self._kept: list[tuple[int, Name, torch.Tensor]] = []

    @property
    def num_bytes(self) -> int:
        """Memory of all slots; 0 before the first pass."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    @property
    def bytes_per_row(self) -> int:
        """Memory of one slot."""
        return self.num_bytes // self._num_slots

    def begin(self, states: Iterable[int]) -> None:
        """The next piece is the first of its sequence: nothing was before it."""
        for at in states:
            self.conv_states[at] = self.recurrent_states[at] = None
            self.is_conv_states_initialized[at] = self.is_recurrent_states_initialized[at] = False
            self.has_previous_state[at] = False

    def load(self, states: Iterable[int], first: int, count: int) -> None:
        """The next piece goes on behind what rows ``first .. first + count`` hold."""
        for at in states:
            conv, recurrent = (self._copied((kind, at), first, count) for kind in ("conv", "recurrent"))
            self.conv_states[at], self.recurrent_states[at] = conv, recurrent
            self.is_conv_states_initialized[at] = conv is not None
            self.is_recurrent_states_initialized[at] = recurrent is not None
            self.has_previous_state[at] = True

    def go_on(self, states: Iterable[int]) -> None:
        """The next piece goes on behind the last one, which what was kept of that must not see."""
        for at in states:
            for found in (self.conv_states, self.recurrent_states):
                state = found[at]
                found[at] = None if state is None else state.clone()

    def keep(self, states: Iterable[int], first: int) -> None:
        """What the piece has left belongs in the slots ``first``..; ``commit`` puts it there."""
        for at in states:
            for kind, found in (("conv", self.conv_states[at]), ("recurrent", self.recurrent_states[at])):
                if found is not None:
                    self._kept.append((first, (kind, at), found))

    def read(self, name: Name, first: int, count: int) -> torch.Tensor | None:
        """What rows ``first .. first + count`` hold, not to be changed; None before anything was put anywhere."""
        buffer = self._buffers.get(name)
        return None if buffer is None else buffer[first : first + count]

    def leave(self, name: Name, first: int, found: torch.Tensor) -> None:
        """``found`` belongs in the slots ``first``..; ``commit`` puts it there."""
        self._kept.append((first, name, found))

    def commit(self) -> None:
        """The pass is through: put back what it has left."""
        for first, name, found in self._kept:
            if name not in self._buffers:
                self._buffers[name] = found.new_zeros((self._num_slots, *found.shape[1:]))
            self._buffers[name][first : first + found.shape[0]] = found
        self.discard()

    def discard(self) -> None:
        """Forget what a pass has left, and what it worked on."""
        self._kept = []
        self.begin(range(self.number_of_states))

    def copy_slot(self, source: int, target: int) -> None:
        """Have ``target`` hold what ``source`` does."""
        for buffer in self._buffers.values():
            buffer[target] = buffer[source]

    def swap_slots(self, a: int, b: int) -> None:
        """Exchange what two slots hold."""
        for buffer in self._buffers.values():
            kept = buffer[a].clone()
            buffer[a] = buffer[b]
            buffer[b] = kept

    def clear_slot(self, slot: int) -> None:
        """Make all that a slot holds zero."""
        for buffer in self._buffers.values():
            buffer[slot].zero_()

    def _copied(self, name: Name, first: int, count: int) -> torch.Tensor | None:
        buffer = self._buffers.get(name)
        return None if buffer is None else buffer[first : first + count].clone()
