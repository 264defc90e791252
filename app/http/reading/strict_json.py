"""JSON as RFC 8259 means it: what Python's parser lets through by default is refused.

Pure functions; know neither Flask nor schemas.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from app.core.errors import InvalidJsonError

MAX_SHOWN = 100


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises ``InvalidJsonError`` for anything else.

    Refused beyond the grammar: other encodings than UTF-8, NaN and infinities (also as 1e999),
    lone surrogates (no UTF-8 answer could hold them), nesting deeper than the parser's stack, and a
    key that comes twice in one object: readers on the way may have taken another of the two.
    """
    if not raw.strip():
        raise InvalidJsonError("the request has no body; send a JSON object")
    try:
        value = _parse(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidJsonError("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidJsonError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise InvalidJsonError(f"the body is not valid JSON: {error.msg} at {place}") from None
    except ValueError as error:
        raise InvalidJsonError(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidJsonError("the body must be a JSON object")
    return value


def dump(value: object) -> str:
    """``value`` as one line of JSON; text stays readable."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _parse(text: str) -> Any:
    value = json.loads(
        text,
        object_pairs_hook=_distinct,
        parse_constant=_refuse_constant,
        parse_float=_finite_float,
        parse_int=_bounded_int,
    )
    if "\\u" in text and not _is_encodable(value):
        raise ValueError("a string holds half of a surrogate pair")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        [(repeated, _)] = counts.most_common(1)
        raise ValueError(f"the key {repeated[:MAX_SHOWN]!r} comes twice in one object")
    return fields


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _bounded_int(digits: str) -> int:
    # Beyond a double's range an integer means nothing to any field, and long ones cost quadratic time.
    if len(digits) > 300:
        raise ValueError("a number is too large")
    return int(digits)
