"""Callers who guess another key's prompt and look whether the server has read it before.

Each guess has a key, or a key and a salt, that no guess had before: what is reported as cached was another caller's.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from tests.service.crowd import post

WELL_BEHAVED_KEY = "well-behaved"
GUESSING_KEYS = tuple(f"guessing-{index}" for index in range(64))
API_KEYS = ",".join((WELL_BEHAVED_KEY, *GUESSING_KEYS))
# What the well-behaved send again and again, long enough for reuse to show in the time to the first token.
SECRET = "The number of the account is 4711-0815, and the pass phrase is correct horse battery staple. " * 12


def header(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


def guess(index: int) -> bytes:
    """Every second one is right to the last character, the others are as long and share nothing."""
    turn, at = divmod(index, len(GUESSING_KEYS))
    prompt = SECRET if index % 2 == 0 else SECRET[::-1]
    salt = {"cache_salt": str(turn)} if turn else {}
    body = json.dumps({"prompt": prompt, "max_new_tokens": 1, **salt})
    return post("/complete", body.encode(), header(GUESSING_KEYS[at]) + f"X-Request-Id: guess-{index}\r\n")


def found(answers: list[bytes]) -> dict[str, Any]:
    """The most tokens that were reported as cached, and what a right and a wrong guess took to the first token."""
    cached, times_ms = [], {0: [0.0], 1: [0.0]}
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " in head.partition(b"\r\n")[0]:
            told = json.loads(body)
            cached.append(told["usage"]["prompt_tokens_details"]["cached_tokens"])
            is_wrong = int(told["request_id"].removeprefix("guess-")) % 2
            times_ms[is_wrong].append(told["timings"]["ttft_ms"] - told["timings"]["queue_ms"])
    return {
        "num_guesses": len(cached),
        "cached_tokens_max": max(cached, default=0),
        "right_ms": round(statistics.median(times_ms[0]), 1),
        "wrong_ms": round(statistics.median(times_ms[1]), 1),
    }
