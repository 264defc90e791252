"""What a failed attempt at one server means for the call: whether another server is asked, and what is thought of this
one.

Only calls of which nothing of an answer has reached the caller come here. All of them may be repeated: what a server
does for a call (text, vectors, scores) leaves nothing behind but its cost; at worst it was done twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..client_errors import (
    ClientError,
    ForeignAnswerError,
    LateError,
    ModelNotFoundError,
    NoAnswerError,
    OverloadedError,
    ReplicaLostError,
    RequestError,
    StreamEndedError,
)

# One that makes engines fail must not go round: a fault of the server, or a connection lost over it, is tried elsewhere
# this often.
MOST_FAULTS = 1
MOST_LOSSES = 2
# With every server at its limit, one call must not ask all of them.
MOST_REFUSALS = 4
REFUSED = frozenset({408, 429, 502, 503})


@dataclass
class Attempts:
    """What one call met so far."""

    num_faults: int = 0
    num_losses: int = 0
    num_refusals: int = 0


@dataclass(frozen=True)
class Verdict:
    """``may_go_on``: another server may be asked. ``has_failed``: what is noted of this one, None for nothing."""

    may_go_on: bool
    has_failed: bool | None


FINAL = Verdict(may_go_on=False, has_failed=None)


def judge(error: ClientError, attempts: Attempts, *, was_connected: bool) -> Verdict:
    """Counts in ``attempts`` what is bounded."""
    if isinstance(error, LateError):
        return FINAL
    if isinstance(error, NoAnswerError | StreamEndedError):
        return Verdict(_has_left(attempts, "num_losses", MOST_LOSSES) if was_connected else True, True)
    if isinstance(error, RequestError):
        return _judge_answer(error, attempts)
    # Whoever answers there is no Forklift server.
    return Verdict(isinstance(error, ForeignAnswerError), True)


def _judge_answer(error: RequestError, attempts: Attempts) -> Verdict:
    if isinstance(error, ModelNotFoundError):
        return Verdict(True, False)
    if not error.code:
        return Verdict(error.status != 401, True)
    if isinstance(error, ReplicaLostError):
        # The server stands; what died was behind it, perhaps of this request.
        return Verdict(_has_left(attempts, "num_losses", MOST_LOSSES), None)
    if isinstance(error, OverloadedError) or error.status == 429:
        return Verdict(_has_left(attempts, "num_refusals", MOST_REFUSALS), False)
    if error.status in REFUSED:
        return Verdict(True, True)
    if error.status == 500:
        return Verdict(_has_left(attempts, "num_faults", MOST_FAULTS), True)
    return Verdict(False, False)


def _has_left(attempts: Attempts, name: str, most: int) -> bool:
    num = getattr(attempts, name) + 1
    setattr(attempts, name, num)
    return bool(num <= most)
