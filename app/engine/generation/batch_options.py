"""How the batched engine works, apart from model and runner: its size, its steps, what it does beside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from app.core.settings import Settings


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The settings of the same meaning; the defaults are the plainest way to work.

    ``num_draft_tokens`` 0: no prompt lookup; with ``adapts_drafts`` only while it pays.
    """

    max_running: int
    prefill_chunk_tokens: int
    reuse_prefix: bool = True
    num_draft_tokens: int = 0
    overlap_text: bool = False
    adapts_drafts: bool = False

    @classmethod
    def of(cls, settings: Settings, device: torch.device) -> BatchOptions:
        overlap_text = device.type == "cuda" if settings.overlap_text == "auto" else settings.overlap_text
        return cls(
            max_running=settings.max_batch_size,
            prefill_chunk_tokens=settings.prefill_chunk_tokens,
            reuse_prefix=settings.prefix_cache,
            num_draft_tokens=settings.num_draft_tokens,
            adapts_drafts=settings.prompt_lookup == "auto",
            overlap_text=overlap_text,
        )
