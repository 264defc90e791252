"""What a registry says of one server: small JSON that a server writes about itself and every client reads.

Whoever may write to the registry may have written it, so what is read is bounded, and each value is of its kind.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..client_errors import ClientError, ForeignAnswerError
from ..connection.server_urls import checked_url
from ..fields import parsed

# Raised where older clients would misread what is written. Fields that a reader does not know are passed over.
FORMAT = 1
MOST_ENTRY_BYTES = 65_536
MOST_NAMES, LONGEST_NAME, LONGEST_URL = 1000, 200, 300
MOST_PLACES, MOST_WEIGHT = 1_000_000, 10_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")

ServerState = Literal["loading", "ready", "draining", "failed"]
STATES: tuple[ServerState, ...] = get_args(ServerState)


class ForeignEntryError(ClientError):
    """An entry that no Forklift server of a known version wrote."""


@dataclass(frozen=True)
class ServerEntry:
    """One server as others see it; nothing in it changes with its load.

    ``places``: sequences that it takes at once, waiting ones included. ``models`` and ``tasks`` are None where they are
    not known: of a list that names addresses only.
    """

    id: str
    http: str
    state: ServerState = "ready"
    models: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    places: int = 1
    weight: int = 100
    zone: str = ""
    version: str = ""
    grpc: str | None = None

    def can_take(self, model: str | None, task: str | None) -> bool:
        """Whether it has the model, or without a name any model for the task; what is not known may be."""
        if model is not None:
            return self.models is None or model in self.models
        return task is None or self.tasks is None or task in self.tasks


def entry_bytes(entry: ServerEntry) -> bytes:
    """What is written of ``entry``. Raises ``ForeignEntryError`` where no reader would take it."""
    data = json.dumps({"format": FORMAT, **asdict(entry)}, separators=(",", ":")).encode()
    entry_of(data)
    return data


def entry_of(data: bytes) -> ServerEntry:
    """Raise ``ForeignEntryError`` with one line for what is no entry."""
    if len(data) > MOST_ENTRY_BYTES:
        raise ForeignEntryError(f"it has {len(data)} bytes, and an entry {MOST_ENTRY_BYTES} at most")
    try:
        found = parsed(data, "it")
    except ForeignAnswerError as failure:
        raise ForeignEntryError(str(failure)) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ForeignEntryError(f"it is no entry of format {FORMAT}")
    return ServerEntry(
        id=_text(found, "id", pattern=_ID),
        http=_url(found),
        state=_state(found),
        models=_names(found, "models"),
        tasks=_names(found, "tasks"),
        places=_count(found, "places", MOST_PLACES),
        weight=_count(found, "weight", MOST_WEIGHT),
        zone=_text(found, "zone"),
        version=_text(found, "version"),
        grpc=None if found.get("grpc") is None else _text(found, "grpc", pattern=_HOST_PORT),
    )


def _url(found: dict[str, Any]) -> str:
    url = _text(found, "http", LONGEST_URL)
    try:
        checked = checked_url(url)
    except ClientError as failure:
        raise ForeignEntryError(f"http: {failure}") from None
    if "@" in checked:
        raise ForeignEntryError("http holds a user or password")
    return checked


def _state(found: dict[str, Any]) -> ServerState:
    for state in STATES:
        if found.get("state") == state:
            return state
    raise ForeignEntryError(f"state is {str(found.get('state'))[:40]!r}")


def _names(found: dict[str, Any], name: str) -> tuple[str, ...] | None:
    names = found.get(name)
    if names is None:
        return None
    if not isinstance(names, list) or len(names) > MOST_NAMES or not all(_is_name(one) for one in names):
        raise ForeignEntryError(f"{name} is no list of at most {MOST_NAMES} names")
    return tuple(names)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _count(found: dict[str, Any], name: str, most: int) -> int:
    value = found.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise ForeignEntryError(f"{name} is {str(value)[:40]!r}, not a number from 1 to {most}")
    return value


def _text(found: dict[str, Any], name: str, longest: int = LONGEST_NAME, pattern: re.Pattern[str] | None = None) -> str:
    value = found.get(name)
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise ForeignEntryError(f"{name} is no text of at most {longest} characters")
    if pattern is not None and not pattern.fullmatch(value):
        raise ForeignEntryError(f"{name} is {value[:40]!r}")
    return value
