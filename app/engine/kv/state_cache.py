"""A cache whose rows hold keys and values of some layers and states of some: of one layer both, or either.

Behind the states of the rows lie those of snapshots: what a row's states were behind so many of its tokens. Inference
thread only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from app.engine.kv.cache import KVCache, KVLayer, Window
from app.engine.kv.row_states import RowStates


class StateCache(KVCache):
    """``num_states`` tells how many states each layer that has any keeps, by its index among the ``layers``."""

    def __init__(
        self,
        layers: Sequence[KVLayer],
        num_rows: int,
        max_tokens: int,
        window: Window,
        *,
        num_states: Mapping[int, int],
        num_snapshots: int,
    ):
        super().__init__(layers, num_rows, max_tokens, window)
        self._num_slots = num_rows + num_snapshots
        self.states = {layer: RowStates(self._num_slots, number) for layer, number in num_states.items()}

    @contextmanager
    def passing(self) -> Iterator[None]:
        """A pass: what it leaves in the states counts once it is through."""
        try:
            yield
            for states in self.states.values():
                states.commit()
        finally:
            for states in self.states.values():
                states.discard()

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        states = self.states[layer_idx]
        return states.conv_states[state_idx] if states.has_previous_state[state_idx] else None

    def update_conv_state(
        self, conv_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **options: Any
    ) -> torch.Tensor:
        found: torch.Tensor = self.states[layer_idx].update_conv_state(conv_states, state_idx, **options)
        return found

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        states = self.states[layer_idx]
        return states.recurrent_states[state_idx] if states.has_previous_state[state_idx] else None

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **options: Any
    ) -> torch.Tensor:
        found: torch.Tensor = self.states[layer_idx].update_recurrent_state(recurrent_states, state_idx, **options)
        return found

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        found = self.states[max(self.states) if layer_idx is None else layer_idx].has_previous_state
        return all(found.values()) if state_idx is None else found[state_idx]

    def load_states(self, source: int, target: int) -> None:
        """Have the row ``target`` go on from the states of another row, or of a snapshot."""
        for states in self.states.values():
            states.copy_slot(source, target)

    def swap_rows(self, a: int, b: int, num_tokens: int) -> None:
        super().swap_rows(a, b, num_tokens)
        if a != b:
            for states in self.states.values():
                states.swap_slots(a, b)

    def clear_row(self, row: int) -> None:
        super().clear_row(row)
        for states in self.states.values():
            states.clear_slot(row)

    @property
    def max_bytes(self) -> int:
        """With the copies that a pass of all rows works on."""
        per_row = sum(states.bytes_per_row for states in self.states.values())
        return super().max_bytes + per_row * (self._num_slots + self.num_rows)

    @property
    def num_bytes(self) -> int:
        return super().num_bytes + sum(states.num_bytes for states in self.states.values())
