"""Passes by code that was compiled for the model's shape: whole ones, or the steps in which a few rows decode.

What there is no code for, or none that is faster, goes the eager way on the same cache and weights, so a sequence can
change from one to the other at any step. Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import KVLayer
from app.engine.runners.graphs.fed import Fed, as_lists
from app.engine.runners.mixed import MixedRunner
from app.engine.runners.windowed import RingWindow, WindowedRunner
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.compiled_step import CompiledStep, KeysValues
from app.models.compiled.native_pass import Entries, NativePass, Tokens
from app.models.weights.adapters.adapter_bank import Rows


class CompiledRunner(MixedRunner):
    """A runner whose rows decode on ``step``, which holds the weights of ``checkpoint``."""

    def __init__(self, step: CompiledStep, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        super().__init__(checkpoint, num_rows, max_tokens)
        self._step = step
        self._embed: Any = checkpoint.model.get_input_embeddings()
        self._rotary: Any = checkpoint.model.base_model.rotary_emb

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        tokens = as_lists(tokens)
        # It was compiled for the model's own weights alone.
        is_known = len(tokens[0]) == 1 and not adapted(self)
        num_filled = self._step.rows_for(len(starts)) if is_known else None
        buffers = None if num_filled is None else self._buffers(max(starts) + 1, len(starts))
        if num_filled is None or buffers is None:
            return super().decode(tokens, starts)
        return self._decode_compiled([row[0] for row in tokens], starts, num_filled, buffers)

    def _decode_compiled(
        self, tokens: list[int], starts: list[int], num_filled: int, buffers: list[KeysValues]
    ) -> torch.Tensor:
        """Feed one of ``tokens`` to each of rows 0, 1, ..; ``(num_rows, 1, vocab)``. The last one fills up."""
        num_rows = len(tokens)
        self.cache.window.set(0, starts, 1)
        rows = list(range(num_rows)) + [num_rows - 1] * (num_filled - num_rows)
        positions = [starts[row] for row in rows]
        states = self._embed(torch.tensor([[tokens[row] for row in rows]]))
        cos, sin = self._rotary(states, torch.tensor([positions]))
        return self._step.run(states[0], cos[0], sin[0], positions, rows, buffers)[:num_rows, None]

    def _buffers(self, length: int, num_rows: int) -> list[KeysValues] | None:
        """Keys and values of every layer with room for ``length`` entries; None before the first pass.

        Of row 0 alone where it is alone.
        """
        reserved = [layer.reserve(length) for layer in self.cache.row_layers]
        if any(one is None for one in reserved):
            return None
        pairs = [pair for pair in reserved if pair is not None]
        return pairs if num_rows > 1 else [(keys[:1], values[:1]) for keys, values in pairs]


class NativePasses(MixedRunner):
    """Makes passes by ``native``, which has the weights of ``checkpoint``; what it does not take goes the eager way."""

    _native: NativePass

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        wanted = range(len(tokens)) if all_logits else [len(tokens) - 1]
        found = self._run(Tokens(tokens, [(row, start, len(tokens))], list(wanted)))
        return super().prefill(row, tokens, start, all_logits=all_logits) if found is None else found

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        tokens = as_lists(tokens)
        num_rows, num_new = len(tokens), len(tokens[0])
        pieces = [(row, start, num_new) for row, start in enumerate(starts)]
        found = self._run(Tokens([token for row in tokens for token in row], pieces, list(range(num_rows * num_new))))
        return super().decode(tokens, starts) if found is None else found.view(num_rows, num_new, -1)

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        ids, wanted = list(tokens), list(range(len(tokens)))
        pieces = [(row, start, 1) for row, start in enumerate(starts)]
        for chunk in chunks:
            pieces.append((chunk.row, chunk.start, len(chunk.tokens)))
            first = len(ids)
            ids += chunk.tokens
            wanted += range(first if chunk.all_logits else len(ids) - 1, len(ids))
        found = self._run(Tokens(ids, pieces, wanted))
        if found is None:
            return super().mixed(tokens, starts, chunks)
        rows, *rest = torch.split(found, [len(starts), *(len(c.tokens) if c.all_logits else 1 for c in chunks)])
        return rows[:, None], rest

    def _run(self, tokens: Tokens) -> torch.Tensor | None:
        """Logits; None where the eager way is to be gone: for so many tokens, before the first pass, and for adapters
        that change more than the layers.
        """
        if not self._native.serves(len(tokens.ids)):
            return None
        adapters = [adapter for adapter, _ in adapted(self)]
        tables = [None if adapter is None else self._native.adapters.table(adapter) for adapter in adapters]
        if tables.count(None) != adapters.count(None):
            return None
        entries = self._entries(tokens.longest)
        return None if entries is None else self._native.run(replace(tokens, adapters=tables), entries)

    def _entries(self, longest: int) -> list[Entries] | None:
        """Room for ``longest`` entries of a row in each layer; None before the first pass has made any."""
        found = [self._entries_of(at, layer, longest) for at, layer in enumerate(self.cache.row_layers)]
        known = [one for one in found if one is not None]
        return known if len(known) == len(found) else None

    def _entries_of(self, _at: int, layer: KVLayer, longest: int) -> Entries | None:
        pair = layer.reserve(longest)
        return None if pair is None else Entries(*pair)


class NativeRunner(NativePasses):
    """Such a runner on rows that keep all entries in each layer."""

    def __init__(self, native: NativePass, checkpoint: Checkpoint, num_rows: int, max_tokens: int):
        super().__init__(checkpoint, num_rows, max_tokens)
        self._native = native


class NativeWindowedRunner(NativePasses, WindowedRunner):
    """Such a runner on rows of which some layers keep the last entries only."""

    def __init__(self, native: NativePass, checkpoint: Checkpoint, num_rows: int, max_tokens: int, *, most_new: int):
        WindowedRunner.__init__(self, checkpoint, num_rows, max_tokens, most_new=most_new)
        self._native = native

    def _entries_of(self, at: int, layer: KVLayer, longest: int) -> Entries | None:
        assert isinstance(self._window, RingWindow)
        kind = self._window.kinds[at]
        pair = layer.reserve(min(longest, layer.max_tokens))
        if pair is None or kind.by_chunk or not kind.has_entries:
            return None
        return Entries(*pair, kind.reach, layer.max_tokens)


def adapted(runner: MixedRunner) -> Rows:
    """Adapters of the pieces of this pass, in their order; empty where no adapter changes any.

    Passes of code are told; eager ones are changed by hooks.
    """
    return () if runner.adapters is None else runner.adapters.now


def runner_on(
    step: CompiledStep | NativePass,
    checkpoint: Checkpoint,
    num_rows: int,
    max_tokens: int,
    *,
    most_new: int | None = None,
) -> CompiledRunner | NativePasses:
    """The runner that makes its passes by the code of a package; ``most_new``: on layers with windows, as such a runner
    takes it.
    """
    if not isinstance(step, NativePass):
        return CompiledRunner(step, checkpoint, num_rows, max_tokens)
    if most_new is None:
        return NativeRunner(step, checkpoint, num_rows, max_tokens)
    return NativeWindowedRunner(step, checkpoint, num_rows, max_tokens, most_new=most_new)


def is_compiled(runner: object) -> bool:
    """Whether it makes passes by the code of a package."""
    return isinstance(runner, CompiledRunner | NativePasses)
