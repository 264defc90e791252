"""Bodies of HTTP's routes to messages of the protocol, and messages to answers: by the names of their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ..client_errors import SetupError
from ..fields import parsed
from .protocol import forklift_pb2 as wire

SERVICE = "forklift.v1.Forklift"
ROUND_FIELDS = ("question", "answer")
# Fields that are a text or a list of texts in JSON, and a list here.
LISTED = ("text", "input", "stop")


@dataclass(frozen=True)
class GrpcMethod:
    """A method, its messages, and what the text of a stream is called."""

    name: str
    request: Any
    reply: Any
    key: str = ""

    @staticmethod
    def of(path: str, is_streamed: bool) -> GrpcMethod:
        """The method that does what the route does. Raises ``SetupError``."""
        found = STREAMS.get(path) if is_streamed else METHODS.get(path)
        if found is None:
            raise SetupError(f"{path} has no method in {SERVICE}; ask the server over HTTP for it")
        return found


METHODS = {
    "/complete": GrpcMethod("Complete", wire.CompleteRequest, wire.CompleteReply),
    "/chat": GrpcMethod("Chat", wire.ChatRequest, wire.ChatReply),
    "/infill": GrpcMethod("Infill", wire.InfillRequest, wire.InfillReply),
    "/fill-mask": GrpcMethod("FillMask", wire.FillMaskRequest, wire.FillMaskReply),
    "/v1/embeddings": GrpcMethod("Embed", wire.EmbedRequest, wire.EmbedReply),
    "/tokenize": GrpcMethod("Tokenize", wire.TokenizeRequest, wire.TokenizeReply),
    "/detokenize": GrpcMethod("Detokenize", wire.DetokenizeRequest, wire.DetokenizeReply),
    "/v1/capabilities": GrpcMethod("Capabilities", wire.CapabilitiesRequest, wire.CapabilitiesReply),
}
STREAMS = {
    "/complete": GrpcMethod("CompleteStream", wire.CompleteRequest, wire.CompletePiece, "completion"),
    "/chat": GrpcMethod("ChatStream", wire.ChatRequest, wire.ChatPiece, "response"),
    "/infill": GrpcMethod("InfillStream", wire.InfillRequest, wire.InfillPiece, "infill"),
}


@dataclass(frozen=True)
class GrpcRequest:
    """What is sent of a call, to whichever server."""

    method: GrpcMethod
    message: Message

    @staticmethod
    def of(path: str, body: dict[str, Any] | None) -> GrpcRequest:
        """What says the same as ``body`` for the route ``path``. Raises ``SetupError``."""
        fields = dict(body or {})
        method = GrpcMethod.of(path, bool(fields.pop("stream", False)))
        return GrpcRequest(method, request_of(method.request, fields))


def request_of(kind: Any, body: dict[str, Any]) -> Message:
    """The message that says the same; what has no field in it goes as JSON. Raises ``SetupError``."""
    fields, options, rest = kind.DESCRIPTOR.fields_by_name, {}, {}
    own: dict[str, Any] = {}
    known = wire.Options.DESCRIPTOR.fields_by_name if "options" in fields else {}
    for name, value in body.items():
        if value is None:
            continue
        if name in fields and _holds(fields[name], value):
            own[name] = _written(fields[name], value)
        elif name in known and _holds(known[name], value):
            options[name] = _written(known[name], value)
        else:
            rest[name] = value
    try:
        if options:
            own["options"] = options
        if rest:
            own["options_json"] = json.dumps(rest, allow_nan=False)
        found: Message = kind(**own)
    except (ValueError, TypeError, RecursionError) as failure:
        raise SetupError(f"the options cannot be written as a message: {failure}") from None
    return found


def answer_of(method: GrpcMethod, message: Any) -> Any:
    """The JSON that the route would have answered."""
    if isinstance(message, wire.FillMaskReply):
        masks = [[_read(mask)["proposals"] for mask in text.masks] for text in message.texts]
        return masks[0] if len(masks) == 1 else masks
    if isinstance(message, wire.CapabilitiesReply):
        return {"data": [parsed(one.json.encode(), "a model") for one in message.data]}
    return _read(message)


def event_of(method: GrpcMethod, message: Any) -> dict[str, Any]:
    """The event that the route would have sent; the last one tells how it ended."""
    if not message.HasField("end"):
        return _read(message)
    return {**_read(message.end), method.key: ""}


def _holds(field: FieldDescriptor, value: Any) -> bool:
    """Whether the field can say ``value`` as it is: what it cannot is sent as JSON, for the server to judge."""
    if field.is_repeated and field.message_type is None:
        values = value if isinstance(value, list | tuple) else [value] if field.name in LISTED else None
        return bool(values) and all(_is_of(field, one) for one in values or ())
    if field.message_type is not None:
        return isinstance(value, list | tuple | dict) and bool(value) and _is_plain(field, value)
    return _is_of(field, value)


def _is_plain(field: FieldDescriptor, value: Any) -> bool:
    """Whether rounds and messages are of texts alone; maps go as JSON."""
    if field.message_type.name == "Round":
        return all(isinstance(one, list | tuple) and [type(part) for part in one] == [str, str] for one in value)
    names = set(field.message_type.fields_by_name)
    return isinstance(value, list | tuple) and all(
        isinstance(one, dict) and set(one) == names and all(type(part) is str for part in one.values()) for one in value
    )


def _is_of(field: FieldDescriptor, value: Any) -> bool:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return isinstance(value, str) and _is_text(value)
        case FieldDescriptor.TYPE_BOOL:
            return isinstance(value, bool)
        case FieldDescriptor.TYPE_DOUBLE:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FieldDescriptor.TYPE_UINT64:
            return type(value) is int and 0 <= value < 2**64
        case _:
            return type(value) is int and -(2**63) <= value < 2**63


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _written(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.name == "Round":
        return [dict(zip(ROUND_FIELDS, one, strict=True)) for one in value]
    return [value] if field.is_repeated and isinstance(value, str) else value


def _read(message: Any) -> dict[str, Any]:
    """Every field that is there, under its name; counts and texts also where they are nothing."""
    found = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = [_value(field, one) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _value(field, value)
    return found


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is None:
        return value
    if field.message_type.name == "Round":
        return [value.question, value.answer]
    return _read(value)
