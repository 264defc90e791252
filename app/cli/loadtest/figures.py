"""What a load measured: one result per request, and the figures of all. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SHARES = (50, 95, 99)


@dataclass(frozen=True)
class Result:
    """One request.

    ``status`` is 0 where no HTTP answer came; ``error`` says why a request failed, also inside a stream. ``ttft_s`` is
    None for an answer that was not streamed, ``gaps_s`` are the pauses between its pieces. ``started_s`` counts from
    the beginning of the load.
    """

    status: int
    total_s: float
    num_tokens: int = 0
    ttft_s: float | None = None
    gaps_s: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    started_s: float = 0.0
    error: str | None = None

    @property
    def is_ok(self) -> bool:
        return self.error is None

    @property
    def ended_s(self) -> float:
        return self.started_s + self.total_s

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between two tokens: a piece may hold several, so their pauses alone would mislead."""
        if not self.gaps_s or self.num_tokens < 2:
            return None
        return sum(self.gaps_s) / (self.num_tokens - 1)


@dataclass(frozen=True)
class Summary:
    """All requests of one load."""

    duration_s: float
    results: list[Result]

    @property
    def ok(self) -> list[Result]:
        return [result for result in self.results if result.is_ok]

    @property
    def tokens_per_s(self) -> float:
        return sum(result.num_tokens for result in self.ok) / self.duration_s

    @property
    def requests_per_s(self) -> float:
        return len(self.ok) / self.duration_s

    def errors(self) -> dict[str, int]:
        """Failed requests by status and reason, most frequent first."""
        found = Counter(f"{one.status or 'no answer'}: {one.error}" for one in self.results if not one.is_ok)
        return dict(found.most_common())

    def as_dict(self) -> dict[str, float | None]:
        """Every figure; times in milliseconds, None where nothing was measured."""
        ok = self.ok
        figures: dict[str, float | None] = {
            "requests_per_s": self.requests_per_s,
            "tokens_per_s": self.tokens_per_s,
            "duration_s": self.duration_s,
            "ok": len(ok),
            "failed": len(self.results) - len(ok),
            "prompt_tokens_mean": mean(one.prompt_tokens for one in ok),
            "new_tokens_mean": mean(one.num_tokens for one in ok),
        }
        for name, values in times(ok).items():
            for share in SHARES:
                figures[f"{name}_p{share}_ms"] = percentile(values, share) * 1000 if values else None
        return {name: None if value is None else round(value, 2) for name, value in figures.items()}


def times(results: Iterable[Result]) -> dict[str, list[float]]:
    """Seconds of each kind, in order: first token, between tokens, between pieces, whole."""
    kept = list(results)
    return {
        "ttft": sorted(one.ttft_s for one in kept if one.ttft_s is not None),
        "itl": sorted(one.inter_token_s for one in kept if one.inter_token_s is not None),
        "gap": sorted(gap for one in kept for gap in one.gaps_s),
        "total": sorted(one.total_s for one in kept),
    }


def percentile(ordered: list[float], share: int) -> float:
    """The value below which ``share`` percent lie; 0 for no values."""
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)] if ordered else 0.0


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
