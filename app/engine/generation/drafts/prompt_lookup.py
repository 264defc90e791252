"""Prompt lookup: proposes the next tokens by copying what followed the same tokens earlier.

No second model: an editor's answer repeats most of its prompt, so the tokens after the last
occurrence of the current ending are a good guess (Saxena 2023, "prompt lookup decoding"). The
model checks a whole draft in one pass. Inference thread only.
"""

from __future__ import annotations

from app.engine.generation.drafts.draft_policy import DraftRecord

# Endings that are looked up, longest first; a single token occurs too often to tell anything.
NGRAM_SIZES = (4, 3, 2)


class PromptLookup:
    """Where each ending of one sequence occurred last; grows with the sequence. ``record``: what came of its drafts."""

    def __init__(self, tokens: list[int], num_draft_tokens: int, *, adapts: bool = False):
        self._tokens = tokens
        self.record = DraftRecord(num_draft_tokens, adapts=adapts)
        self._after: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0

    def draft(self, limit: int) -> list[int]:
        """At most ``limit`` tokens that may come next; empty where the ending is new."""
        self._index()
        for size in NGRAM_SIZES:
            at = self._after.get(tuple(self._tokens[-size:]))
            if at is not None:
                return self._tokens[at : at + min(limit, self.record.length)]
        return []

    def _index(self) -> None:
        """Enter every ending except the sequence's own."""
        for end in range(self._num_indexed + 1, len(self._tokens)):
            for size in NGRAM_SIZES:
                if end >= size:
                    self._after[tuple(self._tokens[end - size : end])] = end
        self._num_indexed = max(len(self._tokens) - 1, self._num_indexed)
