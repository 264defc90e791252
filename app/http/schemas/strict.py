"""What every request body is: a JSON object of known fields, strictly typed."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.core.errors import InvalidParameterError

MAX_STOPS = 16
MAX_STOP_LENGTH = 256


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH)]
StopStrings = Annotated[
    list[StopString],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_listed, json_schema_input_type=StopString | list[StopString]),
]
RecordId = Annotated[str, StringConstraints(max_length=256)] | Annotated[int, Field(ge=-(2**63), lt=2**63)]


class StrictBody(BaseModel):
    """A JSON object of known fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def require_one(body: StrictBody, *names: str) -> None:
    """Raise ``InvalidParameterError`` unless exactly one of the fields is given."""
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        problem = "is missing" if not given else f"cannot be sent together with {given[0]}"
        param = names[0] if not given else given[1]
        raise InvalidParameterError(f"{param}: {problem}; send exactly one of {', '.join(names)}", param=param)


def refuse_together(body: StrictBody, name: str, *others: str) -> None:
    """Raise ``InvalidParameterError``, naming the other field, where ``name`` and one of ``others`` are in use."""
    for other in others:
        if getattr(body, name) is not None and getattr(body, other):
            raise InvalidParameterError(f"{other}: cannot be sent together with {name}", param=other)
