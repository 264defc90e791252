"""When a server is asked again, and after which pause."""

from __future__ import annotations

import random
from collections.abc import Callable

from .client_errors import ClientError, ForeignAnswerError, RequestError
from .connection.exchange import Answer, Exchange
from .error_reading import make_error

RETRIED = frozenset({408, 429, 502, 503})
# What asking again does not mend, also where a server does not say so.
NOT_RETRIED = frozenset({"insufficient_memory"})
FIRST_PAUSE_S = 0.5
MOST_ERROR_BYTES = 64 * 2**10


def refusal(exchange: Exchange, attempt: int) -> tuple[ClientError, float | None]:
    """The error of an answer that is none of ours to use, and after which pause to ask again."""
    with exchange:
        answer = exchange.whole(MOST_ERROR_BYTES)
    if answer.status < 400:
        return ForeignAnswerError(answer.oddity()), None
    error = error_of(answer, exchange.hidden)
    return error, None if error.code in NOT_RETRIED else retry_pause_s(answer, attempt)


def error_of(answer: Answer, hidden: Callable[[str], str]) -> RequestError:
    try:
        return make_error(answer.json(), answer.status, hidden)
    except ForeignAnswerError:
        return make_error({"error": {"message": answer.beginning()}}, answer.status)


def retry_pause_s(answer: Answer, attempt: int) -> float | None:
    """Seconds after which the server advises to ask again; None where it should not be asked again."""
    advice = answer.headers.get("X-Should-Retry")
    if advice == "false" or (advice != "true" and answer.status not in RETRIED):
        return None
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else own_pause_s(attempt)


def own_pause_s(attempt: int) -> float:
    """Doubles with each attempt; by chance shorter, so that many clients do not come back together."""
    return float(FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.0))
