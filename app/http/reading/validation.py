"""Validates a body against its schema, and tells a caller one mistake in the caller's own terms. HTTP threads.

pydantic lists what is wrong with each branch of a union, under paths that hold names of its own types. Told is the
mistake of the branch that fits best, with the path as it stands in the body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.core.errors import InvalidParameterError, RequestError, UnsupportedParameterError
from app.http.schemas.strict import UNKNOWN_FIELD, UNKNOWN_KIND, Reading, StrictBody

Body = TypeVar("Body", bound=StrictBody)
Path = tuple[str | int, ...]

MAX_NAME_LENGTH = 100
# What a value should have been, by pydantic's name of the mistake.
KINDS = {
    "string_type": "a string",
    "list_type": "a list",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def validate(schema: type[Body], fields: dict[str, Any], ignored: list[str] | None = None) -> Body:
    """The body. Where ``ignored`` is a list, unknown fields are left out and their names added to it.

    Raises a ``RequestError`` that names the field at fault.
    """
    try:
        return schema.model_validate(fields, context=Reading(ignored))
    except ValidationError as failure:
        raise describe(failure.errors(include_url=False, include_input=False), fields) from None


def describe(errors: Sequence[ErrorDetails], fields: dict[str, Any]) -> RequestError:
    """The error of the first field that is wrong."""
    first = errors[0]["loc"][:1]
    of_field = [error for error in errors if error["loc"][:1] == first]
    paths = [_place(error, fields) for error in of_field]
    branches = Counter(error["loc"][:-1] for error in of_field)

    def badness(at: int) -> tuple[bool, bool, int, int]:
        error = of_field[at]
        kind = error["type"]
        return kind in KINDS, kind != UNKNOWN_KIND, -len(paths[at]), branches[error["loc"][:-1]]

    best = min(range(len(of_field)), key=badness)
    if of_field[best]["type"] in KINDS:
        same = [error["type"] for error, path in zip(of_field, paths, strict=True) if path == paths[best]]
        return _refused(paths[best], "should be " + " or ".join(dict.fromkeys(KINDS[kind] for kind in same)))
    return _told(of_field[best], paths[best])


def _place(error: ErrorDetails, fields: object) -> Path:
    """Where it is wrong: of what is missing what it is missing from, also where its name stands there with null."""
    loc = error["loc"]
    return place(loc[:-1] if error["type"] == "missing" else loc, fields)


def place(loc: Path, fields: object) -> Path:
    """The steps of ``loc`` that the body has; the others are pydantic's names of branches."""
    path: list[str | int] = []
    value: Any = fields
    for step in loc:
        is_there = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        if is_there:
            path.append(step)
            value = value[step]
    return tuple(path)


def _told(error: ErrorDetails, path: Path) -> RequestError:
    context, last = error.get("ctx", {}), str(error["loc"][-1]) if error["loc"] else ""
    match error["type"]:
        case kind if kind == UNKNOWN_FIELD:
            name = (*path, context["name"])
            hint = f"; did you mean {context['nearest']}?" if context["nearest"] else ""
            return UnsupportedParameterError(f"unknown parameter {_shown(name)!r}{hint}", param=_param(name))
        case kind if kind == UNKNOWN_KIND:
            return UnsupportedParameterError(f"{_shown(path)}: {error['msg']}", param=_param(path))
        case "missing":
            return _refused((*path, last), "is missing")
        case "union_tag_not_found":
            return _refused((*path, str(context["discriminator"]).strip("'")), "is missing")
        case "union_tag_invalid":
            name = (*path, str(context["discriminator"]).strip("'"))
            return _refused(name, f"should be one of {context['expected_tags']}")
        case _:
            text = error["msg"].removeprefix("Value error, ").removeprefix("Input ").removesuffix(" instead")
            return _refused(path, text.replace(" after validation", ""))


def _refused(path: Path, text: str) -> RequestError:
    return InvalidParameterError(f"{_shown(path)}: {text}" if path else text, param=_param(path))


def _shown(path: Path) -> str:
    return ".".join(map(str, path))[:MAX_NAME_LENGTH]


def _param(path: Path) -> str | None:
    return str(path[0])[:MAX_NAME_LENGTH] if path else None
