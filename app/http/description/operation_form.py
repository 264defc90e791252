"""What is told of one method of one route. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.http.reading.body import JSON_TYPE
from app.serve.incoming.error_forms import Error

READS_BODY = (400, 408, 413, 415)
WORKS = (*READS_BODY, 404, 503, 504)


@dataclass(frozen=True)
class Form:
    """An HTML form with one field."""

    field: str


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    ``bodies`` and ``answers`` map media types to Python types (None: no schema, only text);
    ``statuses`` are the errors beyond 401 and 500, which every route can give, ``failure`` what they look like.
    """

    summary: str
    tag: str
    answers: Mapping[str, Any]
    bodies: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = ()
    example: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    failure: Any = Error

    @property
    def takes_place(self) -> bool:
        """Whether a request waits in the queue, so that ``X-Request-Timeout-S`` means something."""
        return 504 in self.statuses


def posting(
    summary: str,
    tag: str,
    body: Any,
    answer: Any,
    example: dict[str, Any],
    *,
    streams: tuple[str, ...] = (),
    text: str = "",
    failure: Any = Error,
) -> Operation:
    """JSON in; JSON out, or one of ``streams``."""
    found = {JSON_TYPE: answer, **dict.fromkeys(streams)}
    return Operation(summary, tag, found, {JSON_TYPE: body}, WORKS, {JSON_TYPE: example}, text, failure)
