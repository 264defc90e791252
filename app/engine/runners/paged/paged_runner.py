"""Passes over a cache in blocks: rows decode in fixed shapes, attending to their own entries alone.

Prompts, and steps that carry drafts, are laid end to end with them and have shapes of their own. With ``graphs`` the
shapes of decoding steps are recorded and replayed. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.core.errors import ModelLoadError
from app.engine.generation.plan import Chunk
from app.engine.kv.blocks.block_pages import Pages
from app.engine.kv.blocks.paged_cache import EntrySize, PagedCache, PagedLayer, entry_sizes
from app.engine.kv.cache import INITIAL_CAPACITY_TOKENS
from app.engine.kv.reach import WHOLE
from app.engine.runners.graphs.decode_graphs import DecodeGraphs, FixedPass
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.graphs.fixed_shapes import powers_of_two, send_with_tokens, smallest
from app.engine.runners.paged.paged_window import PAGED_ATTENTION, PagedWindow, paged_attention
from app.engine.runners.paged.query_rows import QueryWay, RowPlaces, Rule
from app.engine.runners.paged.way_choice import AttentionShape, Choice, choose
from app.engine.runners.row_attention import attending_by
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.layer_kinds import layer_kinds
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import Staged, sent
from app.models.weights.adapters.adapter_bank import AdapterBank

# FlexAttention's kernels want blocks that are worth a product; on a CPU smaller ones find more faults.
BLOCK_TOKENS = {"cuda": 64, "cpu": 16}


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
    ):
        ALL_ATTENTION_FUNCTIONS.register(PAGED_ATTENTION, paged_attention)
        self._model, self._device = checkpoint.model, checkpoint.device
        self.graphs = graphs
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
            partial(self._run, num_rows, num_columns, way),
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
            lengths = sent(np.array(starts) + 1, self._device)
            places = RowPlaces(tables, lengths, self.pages.block_tokens)
        self._window.set_pieces(starts, chunks, places, self.ways.of(len(starts)))
        ids, positions, wanted = list(tokens), list(starts), list(range(len(tokens)))
        for chunk in chunks:
            first = len(ids)
            ids += chunk.tokens
            positions += range(chunk.start, chunk.end)
            wanted += range(first if chunk.all_logits else len(ids) - 1, len(ids))
        logits = self._forward(*(sent(np.array(numbers), self._device) for numbers in (ids, positions, wanted)))
        rows, *rest = torch.split(logits, [len(starts), *(len(c.tokens) if c.all_logits else 1 for c in chunks)])
        return rows[:, None], rest

    def _places(self) -> tuple[int, ...]:
        """Where everything lies that steps read or write, and that may move."""
        return (0 if self.adapters is None else self.adapters.num_stacked, *self.cache.places)

    def _fill(self, tokens: Fed, starts: list[int]) -> None:
        view = self._inputs.on_host
        view.fill(0)
        view[1, : len(starts)] = starts
        send_with_tokens(self._inputs, tokens, len(starts))
        self._tables.fill(len(starts))

    def _run(self, num_rows: int, num_columns: int, way: QueryWay) -> torch.Tensor:
        """One pass; nothing in here depends on the numbers of the step, only on its shape."""
        if self.adapters is not None:
            self.adapters.begin_again()
        tokens, positions = self._inputs.on_device[:, :num_rows]
        tables, size = self._tables.on_device(num_rows, num_columns), self.pages.block_tokens
        slots = tables.gather(1, (positions // size)[:, None])[:, 0] * size + positions % size
        self._window.set_rows(RowPlaces(tables, positions + 1, size), slots, way)
        return self._forward(tokens, positions, 0)[:, None]

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor | int) -> torch.Tensor:
        """Logits ``(num_wanted, vocab)``; 0: behind all tokens."""
        with attending_by(self._model, PAGED_ATTENTION):
            output = self._model(
                input_ids=tokens[None],
                position_ids=positions[None],
                logits_to_keep=wanted,
                mixed_window=self._window,
                **self._caching,
            )
        logits: torch.Tensor = output.logits[0]
        return logits


def sizes_of(checkpoint: Checkpoint, num_layers: int) -> list[EntrySize]:
    """What each layer keeps of a token; before transformers 5.24 its cache had none for those that keep nothing."""
    sizes = entry_sizes(checkpoint)
    return sizes + [EntrySize(0, 0, 0, sizes[0].dtype)] * (num_layers - len(sizes))


def attention_shape(checkpoint: Checkpoint, num_rows: int, max_tokens: int, block_tokens: int) -> AttentionShape:
    """What ways to attend are tried on: the model's heads, and each kind of its layers."""
    config: Any = checkpoint.model.config.get_text_config()
    kinds = layer_kinds(checkpoint.model.config, max_tokens)
    assert kinds is not None
    # Layers that see the same need not keep the same.
    size = next(size for size in sizes_of(checkpoint, len(kinds)) if size.num_heads)
    softcap, sinks = getattr(config, "attn_logit_softcapping", None), None
    if any(name.endswith("sinks") for name, _ in checkpoint.model.named_parameters()):
        sinks = torch.linspace(-1, 2, config.num_attention_heads, device=checkpoint.device)
    rules = [Rule(size.key_dim**-0.5, kind, sinks, softcap) for kind in dict.fromkeys(kinds)]
    return AttentionShape(config.num_attention_heads, size, tuple(rules), num_rows, block_tokens, max_tokens)


def num_blocks_within(
    checkpoint: Checkpoint, num_rows: int, max_tokens: int, block_tokens: int, memory_share: float
) -> int:
    """As many blocks as rows can fill, within a share of what is free. Raises ``ModelLoadError`` below one row."""
    per_row = -(-max_tokens // block_tokens)
    # One for nobody, and of each row one that has to be copied before it is written to.
    wanted, least = num_rows * (per_row + 1) + 1, per_row + 2
    block_bytes = block_tokens * sum(size.num_bytes for size in entry_sizes(checkpoint))
    budget = int(memory_share * free_bytes(checkpoint.device))
    if least * block_bytes > budget:
        raise ModelLoadError(
            f"the KV cache of one sequence of {max_tokens} tokens needs {least * block_bytes / 2**30:.2f} GiB, "
            f"{budget / 2**30:.2f} GiB are for it: lower FORKLIFT_MAX_CONTEXT_TOKENS"
        )
    return min(wanted, budget // block_bytes)


def choice_of(runner: object) -> Choice | None:
    """How the rows of ``runner`` attend, where that was a choice."""
    return runner.ways if isinstance(runner, PagedRunner) else None
