"""Fields of a server's answer: a stranger's, until each is of its kind."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from .client_errors import ForeignAnswerError

MOST_TEXT = 300


def member(body: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = require(require(body, dict, "the answer").get(name), dict, name)
    return found


def text_field(body: Any, name: str) -> str:
    found: str = require(require(body, dict, "the answer").get(name), str, name)
    return found


def count_field(body: Any, name: str) -> int:
    found: int = require(require(body, dict, "the answer").get(name), int, name)
    return found


def number(value: Any) -> float:
    found: float = require(value, (int, float), "a number")
    return found


def list_field(body: Any, name: str) -> list[Any]:
    """Empty where the field is left out or null."""
    found = require(body, dict, "the answer").get(name)
    return [] if found is None else list(require(found, list, name))


def items_of(found: Any) -> list[Any]:
    items: list[Any] = require(found, list, "the answer")
    return items


def require(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    """``value``. A server that answers another kind of value than ours is not ours."""
    if not isinstance(value, kind) or isinstance(value, bool):
        foreign(name, value)
    return value


def foreign(name: str, value: Any) -> NoReturn:
    raise ForeignAnswerError(f"this is no answer of a Forklift server: {name} is {shortened(repr(value)[:1000])}")


def parsed(data: bytes, what: str) -> Any:
    """JSON, without NaN and infinities. Raises ``ForeignAnswerError``."""
    try:
        # `int` refuses NaN and Infinity, which JSON has not.
        return json.loads(data.decode("utf-8-sig"), parse_constant=int)
    except (ValueError, RecursionError):
        raise ForeignAnswerError(f"{what} is not JSON: {beginning_of(data)}") from None


def beginning_of(data: bytes) -> str:
    """The first line of what came instead."""
    lines = data[: 4 * MOST_TEXT].decode("utf-8", "replace").strip().splitlines()
    return shortened(lines[0]) if lines else "it is empty"


def shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."
