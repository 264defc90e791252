"""The arguments of a call as an object, for APIs that tell them so. HTTP threads; pure functions."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic_core import from_json

from app.http.schemas.chat_body import without_halves

# Longer integers than a double holds mean nothing to any tool, and Python writes none of more than 4,300 digits.
MAX_DIGITS = 300


def as_object(arguments: str) -> dict[str, Any]:
    """The object that ``arguments`` are; of text that was cut as much as there is, of what is none an empty one.

    JSON's own text may hold what an answer cannot: halves of surrogate pairs, numbers beyond a double's range.
    """
    source = without_halves(arguments)
    try:
        found = json.loads(source, parse_int=_integer, parse_float=_number, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        found = _partial(source)
    return found if isinstance(found, dict) else {}


def _partial(source: str) -> Any:
    try:
        return _finite(from_json(source, allow_partial="trailing-strings"))
    except ValueError:
        return None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _number(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list():
            return [_finite(one) for one in value]
        case _:
            return value
