"""Tells errors of chat's fields by the names that another API has for them. HTTP threads; pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.errors import RequestError

FieldNames = Mapping[str, str]


def renamed(error: RequestError, names: FieldNames) -> tuple[str, str | None]:
    """The message and the field at fault. Messages begin with the field's name, a colon behind it."""
    if error.param is None or error.param not in names:
        return error.message, error.param
    name = names[error.param]
    start = f"{error.param}: "
    if error.message.startswith(start):
        return f"{name}: {error.message.removeprefix(start)}", name
    return error.message, name
