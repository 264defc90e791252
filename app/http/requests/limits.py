"""How long a request may wait and how many tokens it may generate. Pure functions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.core.errors import ContextLengthError, InvalidParameterError
from app.core.settings import Settings
from app.http.schemas.sampling_fields import SamplingOptions

TIMEOUT_HEADER = "X-Request-Timeout-S"
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Points on ``time.monotonic()``, in seconds; ``own_s`` is the caller's limit, None without one."""

    own_s: float | None
    queue_s: float
    total_s: float

    @classmethod
    def from_now(cls, settings: Settings, own_s: float | None) -> Deadlines:
        """The server's limits, shortened by the caller's own."""
        limits = (settings.queue_timeout_s, settings.request_timeout_s)
        queue_s, total_s = (limit if own_s is None else min(limit, own_s) for limit in limits)
        now_s = time.monotonic()
        return cls(own_s, now_s + queue_s, now_s + total_s)


@contextmanager
def naming(param: str) -> Iterator[None]:
    """A text that is found too long before anybody has counted its tokens came in this field."""
    try:
        yield
    except ContextLengthError as error:
        if error.param is not None:
            raise
        raise ContextLengthError(f"{param}: {error.message}", param=param) from None


def parse_seconds(header: str) -> float:
    """A positive number of seconds in plain decimal notation."""
    seconds = float(header) if _SECONDS.fullmatch(header.strip()) else 0.0
    if seconds <= 0:
        raise InvalidParameterError(f"{TIMEOUT_HEADER}: must be a number of seconds above 0", param=TIMEOUT_HEADER)
    return seconds


def num_new_tokens(options: SamplingOptions, num_prompt: int, context_tokens: int, settings: Settings) -> int:
    """Tokens that this request may generate; 0 where it only wants its prompt scored.

    Sizes are upper bounds, lowered to what fits the context and MAX_NEW_TOKENS; the completion then ends with the
    finish reason ``length``. Refused is only a prompt that leaves no room for one token.
    """
    length = options.length(settings)
    _check_prompt(options.prompt_param, num_prompt, context_tokens)
    bounds = [context_tokens - num_prompt, settings.max_new_tokens]
    if length.wanted is not None:
        bounds.append(length.wanted)
    elif length.total is not None:
        bounds.append(_of_total(length.total, num_prompt))
    else:
        bounds.append(length.default)
    return min(bound for bound in bounds if bound is not None)


def _check_prompt(param: str, num_prompt: int, context_tokens: int) -> None:
    if num_prompt < 1:
        raise InvalidParameterError(f"{param}: must hold at least one token", param=param)
    if num_prompt >= context_tokens:
        text = f"{param}: {num_prompt} tokens leave no room in the context of {context_tokens} tokens"
        text += " (the model's own, or FORKLIFT_MAX_CONTEXT_TOKENS where that is less)"
        raise ContextLengthError(text, param=param)


def _of_total(total: int, num_prompt: int) -> int:
    if total <= num_prompt:
        text = f"max_length: {total} leaves no room after a prompt of {num_prompt} tokens"
        raise ContextLengthError(text, param="max_length")
    return total - num_prompt
