"""The forward passes that a step asks for: what every runner offers, and what only some can.

Every runner writes the same entries into the same kind of cache, so that rows can be swapped,
copied and reused whoever ran them. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from typing import Protocol

import torch

from app.engine.generation.plan import Chunk
from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.cache import KVCache
from app.engine.kv.reach import Reach
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.graphs.recorder import Recorded
from app.models.weights.adapters.adapter_bank import AdapterBank


class Runner(Protocol):
    """Rows 0, 1, .. of ``cache`` are those that decode together; no pass changes the entries of another row."""

    adapters: AdapterBank | None
    """Tells whose rows a pass holds, for code that the bank's hooks do not reach; set by whoever makes the passes."""

    @property
    def cache(self) -> KVCache: ...
    @property
    def can_mix(self) -> bool:
        """Whether there is a pass that reads prompts and decodes."""
        ...

    @property
    def reach(self) -> Reach:
        """How far back in a row of ``cache`` a new sequence may go on."""
        ...

    @property
    def num_snapshots(self) -> int | None:
        """How many slots behind the rows keep their states; None where rows have none, and can go back."""
        ...

    @property
    def pages(self) -> Pages | None:
        """The blocks of ``cache``, where its rows are tables of them."""
        ...

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parts of it that gave other numbers than they should, and that it does without."""
        ...

    @property
    def graphs(self) -> Recorded | None:
        """The recorded steps, where it records any."""
        ...

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        """Feed ``tokens`` at positions ``start``.. of ``row``.

        Logits ``(1, vocab)`` behind the last token, or ``(len(tokens), vocab)`` behind each.
        """
        ...

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        """Feed as many tokens to each of rows 0, 1, ..; logits ``(num_rows, num_new, vocab)`` behind each.

        They are valid until the next pass.
        """
        ...

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Feed one of ``tokens`` to each of rows 0, 1, .. at ``starts``, and the chunks (at least one) to their rows.

        Logits ``(num_rows, 1, vocab)`` of the rows, and per chunk what ``prefill`` gives. Only where ``can_mix``.
        """
        ...
