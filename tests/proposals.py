"""What a fill-mask model proposes, compared with what transformers' pipeline does."""

from __future__ import annotations

from typing import Any


def assert_proposals(found: list[Any], expected: list[Any]) -> None:
    """Equal in all but rounding, fields in their order; a list per mask where there are several."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, list):
            assert_proposals(one, other)
        else:
            assert list(one) == ["score", "token", "token_str", "sequence"]
            assert abs(one["score"] - other["score"]) < 1e-5
            assert {**one, "score": 0} == {**other, "score": 0}
