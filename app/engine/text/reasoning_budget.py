"""How long a model thinks: at the end of its budget the tokens that close that are forced. Inference thread."""

from __future__ import annotations

from collections import deque

from app.core.work.sampling_params import ReasoningLimit


class ReasoningBudget:
    """One sequence's: told of every token, it says which one has to come next."""

    def __init__(self, limit: ReasoningLimit, *, is_thinking: bool):
        self._limit = limit
        # Those that close it are counted, too, as far as there is room for them.
        self._most = max(limit.num_tokens - len(limit.closing), 0)
        self._forced: deque[int] = deque()
        self.note(0, is_thinking=is_thinking, is_whole=True)

    @property
    def forced(self) -> int | None:
        """The token that has to come next; None where the model chooses."""
        return self._forced[0] if self._forced else None

    def accept(self) -> None:
        """The token that was forced is there."""
        if self._forced:
            self._forced.popleft()

    def note(self, num_tokens: int, *, is_thinking: bool, is_whole: bool) -> None:
        """So many tokens of reasoning stand there. It is not closed in the middle of a character."""
        if is_thinking and is_whole and not self._forced and num_tokens >= self._most:
            self._forced.extend(self._limit.closing)
