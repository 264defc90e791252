"""Hands text to the HTTP thread, in fewer and larger pieces the more sequences run.

Each event wakes a thread that wants the interpreter lock while the inference thread needs it for
the next step; with many streams a wake-up per token and stream costs more than the tokens.
Inference thread only.
"""

from __future__ import annotations

import time

from app.core.work.job_events import TextDelta, TokenLogprob
from app.core.work.jobs import Job

# Between two events of one stream, per further sequence that runs; a lone stream gets every token at once.
GAP_PER_SEQUENCE_S = 0.0015
LONGEST_GAP_S = 0.05


class Pace:
    """How long text may wait, for all sequences of one generator."""

    def __init__(self) -> None:
        self.gap_s = 0.0

    def set(self, num_running: int) -> None:
        self.gap_s = min(GAP_PER_SEQUENCE_S * max(num_running - 1, 0), LONGEST_GAP_S)


class TextOutput:
    """Text of one job that has not gone out yet. The first piece of a stream goes at once."""

    def __init__(self, job: Job, pace: Pace):
        self._job = job
        self._pace = pace
        # Lists, not sums: what a token costs must not grow with the answer.
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._last_s = 0.0

    def add(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        """Send ``text`` now, or with what follows."""
        if text:
            self._texts.append(text)
        self._logprobs += logprobs
        if not self._job.is_streamed or not (self._texts or self._logprobs):
            return
        if time.monotonic() - self._last_s >= self._pace.gap_s:
            self.flush()

    def flush(self) -> None:
        """Send what waits; before the job's last event."""
        if self._texts or self._logprobs:
            self._job.emit(TextDelta("".join(self._texts), tuple(self._logprobs)))
            self._texts.clear()
            self._logprobs.clear()
            self._last_s = time.monotonic()
