"""Forward passes over the KV cache: one row's prompt chunk, or the next tokens of many rows.

The scheduler decides which; this is the only part of the step that builds tensors for the model.
Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

import torch

from app.engine.generation.plan import Chunk
from app.engine.kv.cache import KVCache, KVLayer, Window
from app.engine.kv.reach import WHOLE
from app.engine.runners.graphs.fed import Fed
from app.engine.runners.placing.masks import additive_mask
from app.engine.runners.placing.positions import Positions
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import sent_whole
from app.models.weights.adapters.adapter_bank import AdapterBank


class EagerRunner:
    """Runs ``model`` with a cache of ``num_rows`` rows of at most ``max_tokens`` entries."""

    can_mix = False
    reach = WHOLE
    adapters: AdapterBank | None = None
    num_snapshots: int | None = None
    graphs: None = None
    pages: None = None
    left_out: tuple[str, ...] = ()

    def __init__(self, checkpoint: Checkpoint, num_rows: int, max_tokens: int, window: Window | None = None):
        self._model = checkpoint.model
        self._positions = Positions(checkpoint.model)
        self._device = checkpoint.device
        self._dtype = checkpoint.dtype
        self.cache = self._make_cache(num_rows, max_tokens, window or Window())
        self._caching = {cache_argument_of(self._model): self.cache, "use_cache": True}

    def _make_cache(self, num_rows: int, max_tokens: int, window: Window) -> KVCache:
        num_layers = self._model.config.get_text_config().num_hidden_layers
        return KVCache([KVLayer(num_rows, max_tokens, window) for _ in range(num_layers)], num_rows, max_tokens, window)

    def prefill(self, row: int, tokens: list[int], start: int, *, all_logits: bool = False) -> torch.Tensor:
        """Feed ``tokens`` at positions ``start``.. of ``row``.

        Logits ``(1, vocab)`` behind the last token, or ``(len(tokens), vocab)`` behind each.
        """
        self.cache.window.set(row, [start], len(tokens))
        positions = torch.arange(start, start + len(tokens), device=self._device)[None]
        return self._forward([tokens], positions, None, num_logits=len(tokens) if all_logits else 1)[0]

    def decode(self, tokens: Fed, starts: list[int]) -> torch.Tensor:
        """Feed as many tokens to each of rows 0, 1, ..; logits ``(num_rows, num_new, vocab)`` behind each."""
        num_new = len(tokens[0])
        self.cache.window.set(0, starts, num_new, self._device)
        positions = sent_whole(starts, self._device)[:, None]
        if num_new > 1:
            positions = positions + torch.arange(num_new, device=self._device)
        mask = None
        if len(starts) > 1:
            mask = self._mask(positions)
        return self._forward(tokens, positions, mask, num_logits=num_new)

    def _mask(self, positions: torch.Tensor) -> torch.Tensor:
        """What several rows see of their entries, with new tokens at ``positions`` ``(rows, num_new)``."""
        return additive_mask(positions, self.cache.window.length, self._dtype)

    def mixed(
        self, tokens: list[int], starts: list[int], chunks: list[Chunk]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """There is no such pass here: see ``can_mix``."""
        raise AssertionError("a mixed pass was planned for a runner that cannot mix")

    def _forward(
        self, tokens: Fed, positions: torch.Tensor, mask: torch.Tensor | None, num_logits: int
    ) -> torch.Tensor:
        with self._positions.told(positions) as placed:
            output = self._model(
                input_ids=tokens if isinstance(tokens, torch.Tensor) else sent_whole(tokens, self._device),
                attention_mask=mask,
                logits_to_keep=num_logits,
                **placed,
                **self._caching,
            )
        # Not every model knows that fewer are wanted (TrOCR).
        logits: torch.Tensor = output.logits[:, -num_logits:]
        return logits
