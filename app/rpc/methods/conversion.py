"""Messages to the JSON bodies that the schemas know, and answers to messages: by the names of their fields alone.

Any thread. A field that the protocol gains needs nothing here; one that a body or an answer gains and the protocol
has not yet can be sent in ``options_json`` and is left out of the reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from app.core.errors import BadRequestError, InvalidParameterError, UnsupportedParameterError
from app.http.reading.strict_json import parse_object

Reply = TypeVar("Reply", bound=Message)

OPTIONS = "options"
OPTIONS_JSON = "options_json"
# A round of a conversation is a list in JSON and has names here.
ROUND = "forklift.v1.Round"
ROUND_FIELDS = ("question", "answer")


def parse(kind: type[Message], data: bytes) -> Message:
    """The message. Raises ``BadRequestError``."""
    try:
        return kind.FromString(data)
    except (DecodeError, RecursionError):
        raise BadRequestError(f"this is no message of the type {kind.DESCRIPTOR.full_name}") from None


def body_of(message: Message, ignored: list[str] | None = None) -> dict[str, Any]:
    """The JSON body that says the same; where ``ignored`` is a list, unknown fields are named in it.

    Raises a ``RequestError``: for what JSON cannot hold, for fields that this server's protocol has not.
    """
    require_known(message, ignored)
    fields = {field.name: _value(field, value, ignored) for field, value in message.ListFields()}
    text = fields.pop(OPTIONS_JSON, "")
    for more in (fields.pop(OPTIONS, {}), parse_object(text.encode()) if text else {}):
        for name, value in more.items():
            if name in fields:
                raise InvalidParameterError(f"{name[:100]}: is sent twice", param=name[:100])
            fields[name] = value
    return fields


def reply_of(kind: type[Reply], answer: Mapping[str, Any]) -> Reply:
    """The message with those fields of a JSON answer that it has."""
    reply: Reply = kind(**_fitting(kind.DESCRIPTOR, answer))
    return reply


def require_known(message: Message, ignored: list[str] | None) -> None:
    """Raise ``UnsupportedParameterError`` for a field of a later protocol, or name it in ``ignored``."""
    for field in UnknownFieldSet(message):
        name = f"field {field.field_number} of {message.DESCRIPTOR.name}"
        if ignored is None:
            raise UnsupportedParameterError(f"unknown {name}: this server's protocol has none of this number")
        ignored.append(name)


def _value(field: FieldDescriptor, value: Any, ignored: list[str] | None) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _finite(field, one) for key, one in value.items()}
    if field.is_repeated:
        return [_one(field, one, ignored) for one in value]
    return _one(field, value, ignored)


def _one(field: FieldDescriptor, value: Any, ignored: list[str] | None) -> Any:
    if field.message_type is None:
        return _finite(field, value)
    if field.message_type.full_name == ROUND:
        return [getattr(value, name) for name in ROUND_FIELDS]
    require_known(value, ignored)
    return {inner.name: _value(inner, one, ignored) for inner, one in value.ListFields()}


def _finite(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidParameterError(f"{field.name}: should be a finite number", param=field.name)
    return value


def _fitting(kind: Descriptor, answer: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if not isinstance(answer, Mapping):
        answer = dict(zip(ROUND_FIELDS, answer, strict=True))
    fields = kind.fields_by_name
    return {name: _fitted(fields[name], value) for name, value in answer.items() if name in fields}


def _fitted(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and value is not None:
        if field.is_repeated:
            return [_fitting(field.message_type, one) for one in value]
        return _fitting(field.message_type, value)
    # A record's own id may be a number in JSON.
    return str(value) if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, int) else value
