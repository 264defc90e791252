"""The requests of a load: prompts of random words, about as many tokens long as wanted."""

from __future__ import annotations

import asyncio
import keyword
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from app.cli.loadtest.figures import Result
from app.cli.loadtest.timed_request import Target, send

Kind = Literal["completions", "chat"]
PATHS: dict[Kind, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
WORDS = tuple(sorted({*keyword.kwlist, *dir(str), *dir(dict)}))
PROBES = (16, 144)


class ProbeError(Exception):
    """The server does not answer such requests; the text says what it said."""


@dataclass(frozen=True)
class Plan:
    """What each request asks for; ``fields`` are added as they are."""

    kind: Kind
    num_new_tokens: int
    stream: bool
    fields: dict[str, Any]

    def body(self, prompt: str, num_new_tokens: int | None = None) -> dict[str, Any]:
        """One request. A streamed one asks for the server's count of tokens."""
        asked: dict[str, Any] = {"max_tokens": num_new_tokens or self.num_new_tokens, **self.fields}
        if self.stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.kind == "chat":
            return {"messages": [{"role": "user", "content": prompt}], **asked}
        return {"prompt": prompt, **asked}

    def bodies(self, num_words: int, count: int | None, seed: int = 0) -> Iterator[dict[str, Any]]:
        """``count`` requests (None: without end); no two prompts share a beginning, so no prefix cache helps."""
        rng = random.Random(seed)
        made = 0
        while count is None or made < count:
            yield self.body(text(rng, num_words))
            made += 1


def text(rng: random.Random, num_words: int) -> str:
    """A number that no other prompt begins with, then words."""
    return " ".join([str(rng.randrange(10**9)), *rng.choices(WORDS, k=max(num_words - 1, 0))])


def words_for(target: Target, plan: Plan, num_tokens: int, timeout_s: float) -> int:
    """How many words make about ``num_tokens`` prompt tokens on this server, by two small requests.

    A server that does not count its prompts gets a word per token. Raises ``ProbeError``.
    """
    counts = [asyncio.run(_probe(target, plan, num_words, timeout_s)).prompt_tokens for num_words in PROBES]
    if counts[0] is None or counts[1] is None or counts[1] <= counts[0]:
        return num_tokens
    per_word = (counts[1] - counts[0]) / (PROBES[1] - PROBES[0])
    around = counts[0] - per_word * PROBES[0]
    return max(1, round((num_tokens - around) / per_word))


async def _probe(target: Target, plan: Plan, num_words: int, timeout_s: float) -> Result:
    whole = Plan(plan.kind, 1, False, plan.fields)
    result = await send(target, whole.body(text(random.Random(num_words), num_words)), timeout_s)
    if not result.is_ok:
        raise ProbeError(f"{result.status}: {result.error}" if result.status else str(result.error))
    return result
