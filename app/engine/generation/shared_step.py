"""How many tokens fit into a step that others wait for: other models of the worker, or requests that come. Inference
thread only.

The models take turns, a step each, so a step of one is a gap in the streams of the others. What a token costs differs
by a thousand times between models and machines: steps are measured as they go by, and the number is led to where
one takes ``SHARED_STEP_S``. It keeps nothing else from being as long as it is: a single text, or a decoding step.
"""

from __future__ import annotations

# Below what a reader of a stream takes for a stop, above what most passes cost whatever they read.
SHARED_STEP_S = 0.1
FIRST_TOKENS = 64
LEAST_TOKENS = 16
# A single step, which may have been disturbed, changes the number by these factors at most.
LARGEST_CUT, LARGEST_RISE = 0.25, 2.0
# A step that read less than this share of what it might have says nothing of what more would take.
FULL = 0.75


class SharedStep:
    """Measures steps, and says how many tokens the next one may read: ``tokens``, at most ``most_tokens``.

    ``step_s``: what a step is led to take; ``first_tokens``: where that begins.
    """

    def __init__(self, most_tokens: int, *, step_s: float = SHARED_STEP_S, first_tokens: int = FIRST_TOKENS):
        self._most_tokens = most_tokens
        self._step_s = step_s
        self.tokens = min(first_tokens, most_tokens)

    def observe(self, num_tokens: int, took_s: float) -> None:
        """A step read ``num_tokens``, shared or not, and took ``took_s``."""
        if took_s > self._step_s:
            self._lead(min(num_tokens, self.tokens), max(self._step_s / took_s, LARGEST_CUT))
        elif num_tokens >= FULL * self.tokens:
            self._lead(self.tokens, min(self._step_s / max(took_s, 1e-6), LARGEST_RISE))

    def _lead(self, num_tokens: int, change: float) -> None:
        self.tokens = min(max(int(num_tokens * change), LEAST_TOKENS), self._most_tokens)
