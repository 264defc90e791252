"""Rotary embedding in one chain of operations, in each of the orders that families know. Inference thread only."""

from __future__ import annotations

from enum import StrEnum

import torch

Embeddings = tuple[torch.Tensor, torch.Tensor]


class Order(StrEnum):
    """Which two numbers of a head turn together, and how the model lays out cosine and sine for them.

    ``HALVES``: the first with the one half a head behind it; behind as many numbers as there are cosines none turns.
    ``HALVES_ONCE``: cosines are there for the first half alone. ``PAIRS``: neighbours. ``PAIRS_OF_HALVES``: neighbours,
    by cosines that are laid out for halves. ``NONE``: nothing turns.
    """

    HALVES = "halves"
    NONE = "none"
    HALVES_ONCE = "halves_once"
    PAIRS = "pairs"
    PAIRS_OF_HALVES = "pairs_of_halves"

    @property
    def has_pairs(self) -> bool:
        return self in (Order.PAIRS, Order.PAIRS_OF_HALVES)

    def laid_out(self, one: torch.Tensor) -> torch.Tensor:
        """Cosines or sines ``(.., width)`` of the model, one for each number that turns."""
        if self is Order.HALVES_ONCE:
            return torch.cat((one, one), dim=-1)
        if self is Order.PAIRS_OF_HALVES:
            return one[..., : one.shape[-1] // 2].repeat_interleave(2, dim=-1)
        return one


class Rotation:
    """Rotary embedding of ``(.., head_dim)`` states; what all layers of a pass share is made once."""

    def __init__(self, order: Order = Order.HALVES) -> None:
        self.order = order
        self._embeddings: Embeddings | None = None
        self._cos = self._signed_sin = torch.empty(0)

    def __call__(self, states: torch.Tensor, embeddings: Embeddings) -> torch.Tensor:
        """Rotate ``(rows, heads, num_new, head_dim)`` by cosine and sine, each ``(rows, num_new, width)``."""
        if self.order is Order.NONE:
            return states
        if embeddings is not self._embeddings:
            self._prepare(embeddings)
        width = self._cos.shape[-1]
        if width == states.shape[-1]:
            return self._turned(states)
        return torch.cat((self._turned(states[..., :width]), states[..., width:]), dim=-1)

    def _prepare(self, embeddings: Embeddings) -> None:
        cos, sin = (self.order.laid_out(one) for one in embeddings)
        half = sin.shape[-1] // 2
        if self.order.has_pairs:
            signed = torch.stack((-sin[..., ::2], sin[..., 1::2]), dim=-1).flatten(-2)
        else:
            signed = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        self._embeddings, self._cos, self._signed_sin = embeddings, cos[:, None], signed[:, None]

    def _turned(self, states: torch.Tensor) -> torch.Tensor:
        if self.order.has_pairs:
            others = states.view(*states.shape[:-1], -1, 2).flip(-1).flatten(-2)
        else:
            others = states.roll(states.shape[-1] // 2, -1)
        # Cosines of OLMo 2 are float32 whatever the states are.
        return torch.addcmul(states * self._cos, others, self._signed_sin).to(states.dtype)
