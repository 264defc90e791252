"""One gRPC method: how its request is read, and what it is answered with. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message

from app.http.application.request_log import record
from app.http.application.service import Service
from app.http.reading.validation import Body, validate
from app.rpc.methods.conversion import body_of

Fields: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[Message, list[str] | None], Fields]
Answer: TypeAlias = Callable[[Service, Fields], Iterable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """``read`` makes a body of the request; it raises a ``RequestError``, or names what it leaves out in the list."""

    request: type[Message]
    answer: Answer
    is_streamed: bool = False
    read: Read = body_of


def ignored_of(service: Service) -> list[str] | None:
    """Where unknown fields are named instead of refused; None: they are refused."""
    return record().ignored_fields if service.settings.unknown_fields == "warn" else None


def validated(service: Service, schema: type[Body], fields: Fields) -> Body:
    """The body. Raises a ``RequestError``."""
    return validate(schema, fields, ignored_of(service))
