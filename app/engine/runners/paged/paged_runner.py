"""Passes over a cache in blocks: rows decode in fixed shapes, attending to their own entries alone.

Prompts, and steps that carry drafts, are laid end to end with them and have shapes of their own. With ``graphs`` the
shapes of decoding steps are recorded and replayed. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.engine.generation.plan import Chunk
from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.blocks.paged_cache import PagedCache, PagedLayer
from app.engine.kv.cache import INITIAL_CAPACITY_TOKENS
from app.engine.kv.reach import WHOLE
from app.engine.runners.graphs.compiled_passes import NAME as COMPILED
from app.engine.runners.graphs.compiled_passes import CompiledPasses
from app.engine.runners.graphs.decode_graphs import DecodeGraphs
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.graphs.fixed_shapes import powers_of_two, send_with_tokens, smallest
from app.engine.runners.graphs.recorder import FixedPass
from app.engine.runners.paged.paged_sizes import attention_shape, sizes_of
from app.engine.runners.paged.paged_window import PAGED_ATTENTION, PagedWindow, paged_attention
from app.engine.runners.paged.query_rows import QueryWay, RowPlaces
from app.engine.runners.paged.way_choice import choose
from app.engine.runners.placing.positions import Positions
from app.engine.runners.row_attention import attending_by
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.layer_kinds import layer_kinds
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import Staged, sent_whole
from app.models.weights.adapters.adapter_bank import AdapterBank


class Tables:
    """The tables of rows on the device, always in the same memory; sent when they have changed."""

    def __init__(self, pages: Pages, num_rows: int, num_columns: int, device: torch.device):
        self.pages = pages
        self._staged = Staged((num_rows, num_columns), torch.int32, device)
        self._sent: tuple[int, int] | None = None

    def on_device(self, num_rows: int, num_columns: int) -> torch.Tensor:
        return self._staged.on_device[:num_rows, :num_columns]

    def fill(self, num_rows: int) -> None:
        """Rows 0, 1, .. have their blocks, the others nobody's."""
        if self._sent == (self.pages.version, num_rows):
            return
        view = self._staged.on_host
        view.fill(0)
        for row, table in enumerate(self.pages.tables[:num_rows]):
            view[row, : len(table)] = table
        self._staged.send()
        self._sent = self.pages.version, num_rows


class PagedRunner:
    """Runs ``model`` with ``num_rows`` rows of at most ``max_tokens`` entries in the blocks of ``cache``.

    ``ways``: how rows may attend, of which the fastest right one is taken. Raises ``RuntimeError`` where none is right.
    ``compiled`` is the model as a compiler makes it, which may serve in the place of what ``graphs`` record.
    """

    can_mix = True
    reach = WHOLE
    num_snapshots: int | None = None
    adapters: AdapterBank | None = None

    def __init__(
        self,
        checkpoint: Checkpoint,
        num_rows: int,
        max_tokens: int,
        *,
        ways: Sequence[QueryWay],
        num_blocks: int,
        block_tokens: int,
        graphs: DecodeGraphs | None = None,
        compiled: Callable[..., Any] | None = None,
    ):
        ALL_ATTENTION_FUNCTIONS.register(PAGED_ATTENTION, paged_attention)
        self._model, self._device = checkpoint.model, checkpoint.device
        self._positions = Positions(checkpoint.model)
        self.graphs, self._compiled = graphs, compiled
        self._passes: CompiledPasses | None = None
        self.pages = Pages(num_rows, num_blocks, block_tokens)
        self._make_cache(checkpoint, num_rows, max_tokens)
        self.ways = choose(ways, attention_shape(checkpoint, num_rows, max_tokens, block_tokens), self._device)
        self._caching = {cache_argument_of(self._model): self.cache, "use_cache": True}
        self._num_columns = -(-max_tokens // block_tokens)
        self._inputs = Staged((2, num_rows), torch.long, self._device)
        self._tables = Tables(self.pages, num_rows, self._num_columns, self._device)
        self.batch_sizes = powers_of_two(1, num_rows)
        self.lengths = powers_of_two(min(INITIAL_CAPACITY_TOKENS, max_tokens), max_tokens)

    def _make_cache(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int) -> None:
        kinds = layer_kinds(checkpoint.model.config, max_tokens)
        assert kinds is not None, "a layer keeps more than keys and values"
        self._window = window = PagedWindow(self.pages, kinds, max_tokens, self._device)
        sizes = sizes_of(checkpoint, len(kinds))
        layers = [PagedLayer(self.pages, size, max_tokens, window, window, self._device) for size in sizes]
        self.cache = PagedCache(self.pages, layers, num_rows, max_tokens, window)

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        return self.mixed([], [], [Chunk(row, tokens, start, all_logits)])[1][0]

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        if not isinstance(tokens, torch.Tensor) and len(tokens[0]) > 1:
            chunks = [Chunk(row, some, at, True) for row, (some, at) in enumerate(zip(tokens, starts, strict=True))]
            return torch.stack(self.mixed([], [], chunks)[1])
        for row, start in enumerate(starts):
            self.cache.hold(row, start, start + 1)
        num_rows, way = smallest(self.batch_sizes, len(starts)), self.ways.of(len(starts))
        longest = smallest(self.lengths, max(starts) + 1) if way.pays_for_longest else self.cache.max_tokens
        num_columns = -(-longest // self.pages.block_tokens)
        is_adapted = self.adapters is not None and self.adapters.pin(num_rows)
        one = FixedPass(
            (num_rows, num_columns, is_adapted),
            partial(self._fill, tokens, starts),
            partial(self._fill, [], []),
            partial(self._run, num_rows, num_columns, way, self._model),
            None
            if self._compiled is None or is_adapted
            else partial(self._run, num_rows, num_columns, way, self._compiled),
        )
        if self.graphs is not None:
            return self.graphs.run(one, self._places())[: len(starts)]
        one.fill()
        return one.run()[: len(starts)]

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        for row, start in enumerate(starts):
            self.cache.hold(row, start, start + 1)
        for chunk in chunks:
            self.cache.hold(chunk.row, chunk.start, chunk.end)
        places = None
        if starts:
            self._tables.fill(len(starts))
            num_columns = -(-(max(starts) + 1) // self.pages.block_tokens)
            tables = self._tables.on_device(len(starts), num_columns)
            lengths = sent_whole([start + 1 for start in starts], self._device)
            places = RowPlaces(tables, lengths, self.pages.block_tokens)
        self._window.set_pieces(starts, chunks, places, self.ways.of(len(starts)))
        ids, positions, wanted = list(tokens), list(starts), list(range(len(tokens)))
        for chunk in chunks:
            first = len(ids)
            ids += chunk.tokens
            positions += range(chunk.start, chunk.end)
            wanted += range(first if chunk.all_logits else len(ids) - 1, len(ids))
        inputs = [sent_whole(numbers, self._device) for numbers in (ids, positions, wanted)]
        logits = self._forward(self._model, *inputs)
        rows, *rest = torch.split(logits, [len(starts), *(len(c.tokens) if c.all_logits else 1 for c in chunks)])
        return rows[:, None], rest

    @property
    def left_out(self) -> tuple[str, ...]:
        is_without = self._passes is not None and self._passes.failure is not None
        return (*self.ways.wrong, *((COMPILED,) if is_without else ()))

    @torch.inference_mode()
    def compile_shapes(self, passes: CompiledPasses) -> None:
        """Have steps recorded, and compiled where that pays, those first that are worth it most; rows are nobody's yet.

        A lone row, then as many as there may be, then fewer and fewer.
        """
        self._passes = passes
        for num_rows, length in self._shapes():
            if not passes.has_time:
                break
            if -(-length // self.pages.block_tokens) + num_rows - 1 <= self.pages.num_free:
                starts = [length - 1, *(row % self.pages.block_tokens for row in range(1, num_rows))]
                self.decode([[row % 7 + 1] for row in range(num_rows)], starts)
            self.pages.reset()
        passes.close()
        if passes.failure is not None and self.graphs is not None:
            self.graphs.drop()

    def _shapes(self) -> list[tuple[int, int]]:
        """Numbers of rows, and entries of the longest one where that makes a difference."""
        one, *more = self.batch_sizes
        most = [self.cache.max_tokens]
        return [
            (num_rows, length)
            for num_rows in (one, *reversed(more))
            for length in (self.lengths if self.ways.of(num_rows).pays_for_longest else most)
        ]

    def _places(self) -> tuple[int, ...]:
        """Where everything lies that steps read or write, and that may move."""
        return (0 if self.adapters is None else self.adapters.num_stacked, *self.cache.places)

    def _fill(self, tokens: Fed, starts: list[int]) -> None:
        view = self._inputs.on_host
        view.fill(0)
        view[1, : len(starts)] = starts
        send_with_tokens(self._inputs, tokens, len(starts))
        self._tables.fill(len(starts))

    def _run(self, num_rows: int, num_columns: int, way: QueryWay, model: Callable[..., Any]) -> torch.Tensor:
        """One pass; nothing in here depends on the numbers of the step, only on its shape."""
        if self.adapters is not None:
            self.adapters.begin_again()
        tokens, positions = self._inputs.on_device[:, :num_rows]
        tables, size = self._tables.on_device(num_rows, num_columns), self.pages.block_tokens
        slots = tables.gather(1, (positions // size)[:, None])[:, 0] * size + positions % size
        self._window.set_rows(RowPlaces(tables, positions + 1, size), slots, way)
        return self._forward(model, tokens, positions, 0)[:, None]

    def _forward(
        self, model: Callable[..., Any], tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor | int
    ) -> torch.Tensor:
        """Logits ``(num_wanted, vocab)``; 0: behind all tokens."""
        with attending_by(self._model, PAGED_ATTENTION), self._positions.told(positions[None]) as placed:
            output = model(
                input_ids=tokens[None],
                logits_to_keep=wanted,
                mixed_window=self._window,
                **placed,
                **self._caching,
            )
        logits: torch.Tensor = output.logits[0]
        return logits
