"""Several sequences in one forward pass: next tokens and chunks of prompts, laid end to end.

A pass costs a fixed time whatever it carries; on small models that is half of it. So prompts that
are read beside running streams go through the model with them: the linear layers see one long row
of tokens, and attention, the only place where sequences differ, is computed piece by piece.
Works for models that take their attention from transformers' interface. Inference thread only;
knows neither jobs nor sampling.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import Window
from app.engine.runners.eager import EagerRunner
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.placing.masks import additive_mask
from app.engine.runners.placing.positions import position_hosts
from app.engine.runners.row_attention import ROW_ATTENTION, attending_by, row_attention
from app.models.checkpoint.layer_kinds import latent_rank
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import sent_whole

ATTENTION = "forklift_mixed"


class MixedWindow(Window):
    """A window that a pass may also fill with a token for each of rows 0, 1, .. and with chunks behind them.

    ``attention`` is the name of the function that reads it. ``is_packed``: layers make keys and values of what is kept,
    so they get what the pass reads and no more: one behind the other, the rows' entries and those of each chunk's row.
    """

    attention = ATTENTION
    is_packed = False

    def set(self, first: int, positions: list[int], num_new: int, device: torch.device | None = None) -> None:
        self.chunks: list[Chunk] | None = None
        super().set(first, positions, num_new, device)

    def set_static(self, rows: torch.Tensor, row_positions: torch.Tensor, length: int) -> None:
        self.chunks = None
        super().set_static(rows, row_positions, length)

    def set_pieces(self, positions: list[int], chunks: list[Chunk], device: torch.device, dtype: torch.dtype) -> None:
        """What the next pass holds; masks are made once here and serve all layers."""
        self.set(0, positions or [0], 1, device)
        self.chunks = chunks
        self.num_rows, self.row_length = len(positions), self.length
        self.row_mask = None
        if self.num_rows > 1:
            self.row_mask = additive_mask(self.row_positions[:, None], self.row_length, dtype)
        self.chunk_masks = [chunk_mask(chunk, device, dtype) for chunk in chunks]
        self.length = max([self.row_length, *(chunk.end for chunk in chunks)])

    def write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """With pieces: store ``(1, num_kv_heads, num_tokens, head_dim)`` states where they belong; the whole buffer."""
        if self.chunks is None:
            return super().write(buffer, states)
        at = self.num_rows
        if at == 1:
            buffer[0, :, self.start] = states[0, :, 0]
        elif at:
            buffer[self.rows, :, self.row_positions] = states[0, :, :at].transpose(0, 1)
        for chunk in self.chunks:
            end = at + len(chunk.tokens)
            buffer[chunk.row, :, chunk.start : chunk.end] = states[0, :, at:end]
            at = end
        return self._packed(buffer) if self.is_packed else buffer

    def _packed(self, buffer: torch.Tensor) -> torch.Tensor:
        """``(1, num_kv_heads, entries, ..)``: what ``rows_of`` and ``chunk_of`` find again."""
        assert self.chunks is not None
        rows = buffer[: self.num_rows, :, : self.row_length].transpose(0, 1).flatten(1, 2)
        return torch.cat([rows, *(buffer[chunk.row, :, : chunk.end] for chunk in self.chunks)], dim=1)[None]

    def rows_of(self, found: torch.Tensor, length: int, *, is_packed: bool) -> torch.Tensor:
        """What the rows read of ``length`` entries each: ``(rows, num_kv_heads, length, ..)``."""
        if not is_packed:
            return found[: self.num_rows, :, :length]
        rows = found[0, :, : self.num_rows * length]
        return rows.reshape(found.shape[1], self.num_rows, length, found.shape[3]).transpose(0, 1)

    def chunk_of(self, found: torch.Tensor, index: int, length: int, *, is_packed: bool) -> torch.Tensor:
        """The same of a chunk: ``(1, num_kv_heads, length, ..)``."""
        assert self.chunks is not None
        if not is_packed:
            row = self.chunks[index].row
            return found[row : row + 1, :, :length]
        first = self.num_rows * self.row_length + sum(chunk.end for chunk in self.chunks[:index])
        return found[:, :, first : first + length]


def chunk_mask(chunk: Chunk, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
    """None where a causal pass, or one token that sees everything, needs no mask."""
    if chunk.start == 0 or len(chunk.tokens) == 1:
        return None
    return additive_mask(torch.arange(chunk.start, chunk.end, device=device)[None], chunk.end, dtype)


def mixed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    mixed_window: MixedWindow,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of ``query`` ``(1, heads, num_tokens, head_dim)`` to buffers ``(num_rows, kv_heads, capacity, ..)``.

    Returns ``(1, num_tokens, heads, head_dim)``; transformers' own function computes each piece.
    """
    window, at = mixed_window, mixed_window.num_rows
    assert window.chunks is not None
    options.pop("is_causal", None)
    pieces = []
    if at:
        rows = query[0, :, :at].transpose(0, 1)[:, :, None]
        keys, values = (window.rows_of(some, window.row_length, is_packed=window.is_packed) for some in (key, value))
        found, _ = row_attention(module, rows, keys, values, window.row_mask, **options)
        pieces.append(found.transpose(0, 1))
    for index, (chunk, mask) in enumerate(zip(window.chunks, window.chunk_masks, strict=True)):
        end = at + len(chunk.tokens)
        keys, values = (window.chunk_of(some, index, chunk.end, is_packed=window.is_packed) for some in (key, value))
        pieces.append(chunk_attention(module, query[:, :, at:end], keys, values, mask, **options))
        at = end
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1), None


def chunk_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    **options: Any,
) -> torch.Tensor:
    """Attention of one chunk, ``(1, num_tokens, heads, head_dim)``.

    With a mask transformers copies keys and values for every query head that shares them, since on a
    GPU torch would leave its fast kernels. On the CPU torch needs no copies: a chunk of 16 tokens behind
    1,900 takes half the time (torch 2.13).
    """
    if mask is None or query.device.type != "cpu" or options.get("position_bias") is not None:
        found, _ = sdpa_attention_forward(module, query, keys, values, mask, is_causal=True, **options)
        return cast(torch.Tensor, found)
    found = scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=options.get("scaling"), enable_gqa=query.shape[1] != keys.shape[1]
    )
    return found.transpose(1, 2)


class MixedRunner(EagerRunner):
    """A runner that can also read prompts and decode in one pass."""

    can_mix = True

    def __init__(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int, window: MixedWindow | None = None):
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, mixed_attention)
        ALL_ATTENTION_FUNCTIONS.register(ROW_ATTENTION, row_attention)
        self._window = window or MixedWindow()
        # Latents become keys and values of every head in each pass (DeepSeek's attention).
        self._window.is_packed = latent_rank(checkpoint.model.config) is not None
        super().__init__(checkpoint, num_rows, max_tokens, self._window)

    def take_over(self, other: MixedRunner) -> None:
        """Go on with the cache of ``other``, which makes no more passes."""
        self.cache, self._window, self._caching = other.cache, other._window, other._caching

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        """Feed as many tokens to each of rows 0, 1, ..; logits ``(num_rows, num_new, vocab)`` behind each."""
        if len(tokens[0]) > 1:
            return super().decode(tokens, starts)
        with attending_by(self._model, ROW_ATTENTION):
            return super().decode(tokens, starts)

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Feed one of ``tokens`` to each of rows 0, 1, .. at ``starts``, and the chunks (at least one) to their rows.

        Logits ``(num_rows, 1, vocab)`` of the rows, and per chunk what ``prefill`` gives.
        """
        self._window.set_pieces(starts, chunks, self._device, self._dtype)
        with attending_by(self._model, self._window.attention):
            logits = self._mixed_logits(tokens, starts, chunks)
        rows, *rest = torch.split(logits, [len(starts), *(len(c.tokens) if c.all_logits else 1 for c in chunks)])
        return rows[:, None], rest

    def _mixed_logits(self, tokens: list[int], starts: list[int], chunks: list[Chunk]) -> torch.Tensor:
        """``(num_wanted, vocab)``: of every row, and of the last token or all tokens of every chunk."""
        ids, positions, wanted = list(tokens), list(starts), list(range(len(tokens)))
        for chunk in chunks:
            first = len(ids)
            ids += chunk.tokens
            positions += range(chunk.start, chunk.end)
            wanted += range(first if chunk.all_logits else len(ids) - 1, len(ids))
        with self._positions.told(sent_whole([positions], self._device)) as placed:
            output = self._model(
                input_ids=sent_whole([ids], self._device),
                logits_to_keep=sent_whole(wanted, self._device),
                mixed_window=self._window,
                **placed,
                **self._caching,
            )
        logits: torch.Tensor = output.logits[0]
        return logits


def can_mix(checkpoint: Checkpoint) -> bool:
    """Whether the model's attention can be replaced; what comes of it is checked at the load (``ladder.py``)."""
    model = checkpoint.model
    # Decoders of BART's kind ask the interface, and do not say so.
    is_replaceable = bool(model._supports_attention_backend) or (asks_interface(model) and bool(position_hosts(model)))
    return is_replaceable and model.config.get_text_config()._attn_implementation == "sdpa"


def asks_interface(model: Any) -> bool:
    """Whether the code of a model's family knows transformers' interface for attention."""
    return hasattr(sys.modules[type(model).__module__], "ALL_ATTENTION_FUNCTIONS")
