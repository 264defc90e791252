"""How many prompt tokens a step reads beside running streams. Inference thread only.

What a prompt token costs, next to the time that a step takes anyway, differs by ten times between
models and machines. So both are measured as steps go by, and a step is made so long that a stream's
gap stays a small multiple of its usual one.
"""

from __future__ import annotations

# A step that reads prompts takes about this many times as long as one that does not.
STRETCH = 2.0
FIRST_TOKENS = 48
LEAST_TOKENS = 16
# Weight of the newest step in the running averages.
NEWEST = 0.2


class PrefillBudget:
    """Measures steps, and says how many prompt tokens the next one may read, at most ``chunk_tokens``."""

    def __init__(self, chunk_tokens: int):
        self._chunk_tokens = chunk_tokens
        self._decode_s: float | None = None
        self._token_s: float | None = None

    def tokens(self, num_running: int) -> int:
        """Prompt tokens of the next step: the whole chunk while nothing runs, else what the streams can bear."""
        if not num_running:
            return self._chunk_tokens
        if self._decode_s is None or self._token_s is None:
            return min(FIRST_TOKENS, self._chunk_tokens)
        bearable = int((STRETCH - 1) * self._decode_s / self._token_s)
        return min(max(bearable, LEAST_TOKENS), self._chunk_tokens)

    def observe(self, num_running: int, num_prompt_tokens: int, took_s: float) -> None:
        """A step decoded for ``num_running`` sequences, read ``num_prompt_tokens`` and took ``took_s``."""
        if not num_running:
            return
        if not num_prompt_tokens:
            self._decode_s = _averaged(self._decode_s, took_s)
        elif self._decode_s is not None:
            # At least a hundredth of a step: a step that was faster than usual says nothing.
            extra_s = max(took_s - self._decode_s, 0.01 * self._decode_s)
            self._token_s = _averaged(self._token_s, extra_s / num_prompt_tokens)


def _averaged(average: float | None, newest: float) -> float:
    return newest if average is None else (1 - NEWEST) * average + NEWEST * newest
