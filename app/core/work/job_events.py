"""What the inference thread tells of a job: pieces of text, and its end. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.core.errors import RequestError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability before any sampling parameter, and the best tokens in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that will not change any more; never half a character, never part of a stop string.

    ``logprobs`` holds the tokens generated since the last event, where they were asked for: text
    may lag behind them while a character or a stop string is unfinished.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptScored:
    """Log-probabilities of the prompt's tokens from the second on; the first has nothing before it."""

    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a sequence that ended well. ``is_cut``: by a stop string or pattern, not by an end token;
    ``stop``: by this string."""

    finish_reason: FinishReason
    is_cut: bool = field(default=False, compare=False)
    stop: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a sequence that did not."""

    error: RequestError


Event = TextDelta | PromptScored | Finished | Failed
