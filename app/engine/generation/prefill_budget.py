"""How many prompt tokens a step reads beside running streams. Inference thread only.

What a prompt token costs, next to the time that a step takes anyway, differs by ten times between
models and machines. So steps are measured as they go by, and the number is led to where a step with
prompts takes a fixed multiple of one without, or as long as nobody who reads notices: a stream's gap stays
within that, and no pass is so small that its fixed cost is most of it. Both depend on how many streams run, so each
number of streams has its own figures.

Where a step without prompts is much faster than any that reads some (it runs on code of its own, say), no number of
tokens meets that multiple: then the fixed cost decides. A token's own time is known from passes that read prompts
alone; a step reads as many as make up for the fixed cost, as long as it stays short for a reader.
"""

from __future__ import annotations

# A step that reads prompts takes about this many times as long as one that does not.
STRETCH = 2.75
# A gap that ten tokens a second have: where steps are short, larger parts of prompts get everybody on sooner.
SHORT_S = 0.1
# Where the fixed cost of reading decides: no step is led to take longer than this for it.
LONGEST_S = 0.25
FIRST_TOKENS = 48
LEAST_TOKENS = 16
# Weight of the newest step in the running average.
NEWEST = 0.2
# A single step, which may have been disturbed, changes the number by this factor at most.
LARGEST_CHANGE = 1.25
# A step that read less than this share of what it might have says nothing of what more would take.
FULL = 0.75


class PrefillBudget:
    """Measures steps, and says how many prompt tokens the next one may read, at most ``chunk_tokens``."""

    def __init__(self, chunk_tokens: int):
        self._chunk_tokens = chunk_tokens
        self._decode_s: dict[int, float] = {}
        self._tokens: dict[int, float] = {}
        self._token_s: float | None = None

    def tokens(self, num_running: int) -> int:
        """Prompt tokens of the next step: the whole chunk while nothing runs, else what the streams can bear."""
        if not num_running:
            return self._chunk_tokens
        led_to = _nearest(self._tokens, num_running) or FIRST_TOKENS
        return min(int(led_to), self._chunk_tokens)

    def observe(self, num_running: int, num_prompt_tokens: int, took_s: float) -> None:
        """A step decoded for ``num_running`` sequences, read ``num_prompt_tokens`` and took ``took_s``."""
        if not num_running:
            self._observe_alone(num_prompt_tokens, took_s)
            return
        usual_s = _nearest(self._decode_s, num_running)
        if not num_prompt_tokens:
            known_s = self._decode_s.get(num_running, took_s)
            self._decode_s[num_running] = (1 - NEWEST) * known_s + NEWEST * took_s
        elif usual_s is not None:
            led_to = max(STRETCH * usual_s, SHORT_S) / took_s
            worth = self._worth_reading(num_prompt_tokens, took_s, usual_s) / self.tokens(num_running)
            self._lead(num_running, num_prompt_tokens, max(led_to, worth))

    def _observe_alone(self, num_prompt_tokens: int, took_s: float) -> None:
        """What a token costs in a pass of many; one of few says more of its fixed cost."""
        if num_prompt_tokens >= FIRST_TOKENS:
            token_s = took_s / num_prompt_tokens
            known_s = token_s if self._token_s is None else self._token_s
            self._token_s = (1 - NEWEST) * known_s + NEWEST * token_s

    def _worth_reading(self, num_prompt_tokens: int, took_s: float, usual_s: float) -> float:
        """Tokens that take as long as the fixed cost of reading any beside streams, within ``LONGEST_S``."""
        if self._token_s is None:
            return 0.0
        fixed_s = took_s - usual_s - num_prompt_tokens * self._token_s
        left_s = LONGEST_S - usual_s - fixed_s
        return max(min(fixed_s, left_s), 0.0) / self._token_s

    def _lead(self, num_running: int, num_prompt_tokens: int, change: float) -> None:
        allowed = self.tokens(num_running)
        if change > 1 and num_prompt_tokens < FULL * allowed:
            return
        change = min(max(change, 1 / LARGEST_CHANGE), LARGEST_CHANGE)
        self._tokens[num_running] = min(max(allowed * change, LEAST_TOKENS), self._chunk_tokens)


def _nearest(figures: dict[int, float], num_running: int) -> float | None:
    """The figure of that number of streams, else of the next smaller one, else of the smallest; None without any."""
    smaller = [number for number in figures if number <= num_running]
    return figures[max(smaller) if smaller else min(figures)] if figures else None
