"""Errors as JSON, read into the client's own classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from .client_errors import RequestError
from .fields import shortened


def make_error(body: Any, status: int | None = None, hidden: Callable[[str], str] = str) -> RequestError:
    """The error of an envelope: of its code's class, else of its status's. Other servers' forms are read as well.

    ``hidden`` takes the key out of the message.
    """
    envelope = body if isinstance(body, dict) else {}
    error = envelope.get("error") or envelope.get("detail") or envelope.get("message")
    fields = error if isinstance(error, dict) else {"message": error}
    code, param, request_id = (
        _optional_text(one) for one in (fields.get("code"), fields.get("param"), envelope.get("request_id"))
    )
    known = list(_classes(RequestError))
    kinds = [one for one in known if one.code == code] or [one for one in known if one.status == status]
    kind = kinds[0] if kinds else RequestError
    message = _optional_text(fields.get("message")) or f"an error without a message: {shortened(json.dumps(body))}"
    return kind(hidden(message), status=status or kind.status, code=code or "", param=param, request_id=request_id)


def _optional_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _classes(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _classes(one)
