"""What every request body is: a JSON object of known fields, strictly typed; ``null`` means left out."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from app.core.errors import InvalidParameterError

# OpenAI's own bound is 4; clients that cut at function names send dozens.
MAX_STOPS = 64
MAX_STOP_LENGTH = 256
UNKNOWN_FIELD = "unknown_field"
UNKNOWN_KIND = "unknown_kind"
# What other servers call a field of ours, where the names do not look alike.
OTHER_NAMES = {
    "max_tokens": ("max_new_tokens", "max_completion_tokens"),
    "max_new_tokens": ("max_tokens",),
    "max_completion_tokens": ("max_new_tokens", "max_tokens"),
    "n_predict": ("max_new_tokens", "max_tokens"),
    "num_predict": ("max_new_tokens", "max_tokens"),
    "max_output_tokens": ("max_tokens", "max_new_tokens"),
    "repeat_penalty": ("repetition_penalty",),
    "random_seed": ("seed",),
    "stop_sequences": ("stop",),
    "functions": ("tools",),
    "function_call": ("tool_choice",),
    "inputs": ("prompt", "input", "text"),
    "input": ("prompt", "text"),
    "text": ("prompt", "input"),
    "query": ("prompt",),
    "guided_regex": ("regex",),
    "guided_json": ("structured_outputs", "response_format"),
    "guided_choice": ("structured_outputs",),
    "guided_grammar": ("structured_outputs",),
    "grammar": ("structured_outputs",),
}


def _listed(value: object) -> object:
    if not isinstance(value, str | list):
        raise ValueError("should be a string or a list")
    return [value] if isinstance(value, str) else value


StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH)]
StopStrings = Annotated[
    list[StopString],
    Field(max_length=MAX_STOPS, fail_fast=True),
    BeforeValidator(_listed, json_schema_input_type=StopString | list[StopString]),
]
RecordId = Annotated[str, StringConstraints(max_length=256)] | Annotated[int, Field(ge=-(2**63), lt=2**63)]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a body is read: where ``ignored`` is a list, unknown fields are left out and named in it."""

    ignored: list[str] | None


class StrictBody(BaseModel):
    """A JSON object of known fields.

    A field that is ``null`` is one that was left out, known or not: SDKs send their own objects back with every field
    that they know. This holds for objects of ours only; what belongs to the caller (JSON schemas, arguments, metadata)
    is typed as plain objects and keeps its nulls.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, fields: Any, info: ValidationInfo) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = cls.known_names()
        given = {name: value for name, value in fields.items() if value is not None}
        unknown = [name for name in given if name not in known]
        ignored = info.context.ignored if isinstance(info.context, Reading) else None
        if unknown and ignored is None:
            context = {"name": str(unknown[0]), "nearest": nearest(str(unknown[0]), known)}
            raise PydanticCustomError(UNKNOWN_FIELD, "unknown parameter", context)
        if ignored is not None:
            ignored += unknown
        return {name: value for name, value in given.items() if name in known}

    @classmethod
    def known_names(cls) -> list[str]:
        """The fields as a body names them."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Tell that null is the same as leaving a field out."""
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)
        described["additionalProperties"] = {"type": "null"}
        for name, field in described.get("properties", {}).items():
            if name not in described.get("required", []):
                described["properties"][name] = _nullable(field)
        return schema


def _nullable(field: JsonSchemaValue) -> JsonSchemaValue:
    options = field.get("anyOf", [])
    if field.get("type") == "null" or any(option.get("type") == "null" for option in options):
        return field
    notes: JsonSchemaValue = {name: field[name] for name in ("description", "title", "default") if name in field}
    rest = {name: value for name, value in field.items() if name not in notes}
    return {"anyOf": [*(options or [rest]), {"type": "null"}], **notes}


def nearest(name: str, known: list[str]) -> str | None:
    """The known field that ``name`` may have meant."""
    others = [other for other in OTHER_NAMES.get(name, ()) if other in known]
    close = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.7)
    return next(iter([*others, *close]), None)


def bounded_size(max_size: int) -> BeforeValidator:
    """Refuse an object of more entries before each of them is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > max_size:
            raise ValueError(f"should have at most {max_size} entries, not {len(value)}")
        return value

    return BeforeValidator(check)


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
