"""Tells errors of chat's fields by the names that another API has for them. HTTP threads; pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.errors import RequestError

FieldNames = Mapping[str, str]


def renamed(error: RequestError, names: FieldNames) -> tuple[str, str | None]:
    """The message and the field at fault. Messages begin with the field's name, or a path of chat's, and a colon."""
    if error.param is None or error.param not in names:
        return error.message, error.param
    name = names[error.param]
    place, _, text = error.message.partition(": ")
    is_place = text and place.partition(".")[0] == error.param
    return f"{name}: {text}" if is_place else error.message, name
