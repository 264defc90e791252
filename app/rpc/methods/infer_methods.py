"""The methods of the Open Inference Protocol: tensors of messages to those of its JSON, and back. Any thread.

What they do stands in ``app/http/dialects/open_inference``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from app.core.errors import InvalidParameterError
from app.http.application.service import Service
from app.http.dialects.open_inference.infer_body import InferBody
from app.http.dialects.open_inference.infer_routes import is_server_ready, server_metadata
from app.http.dialects.open_inference.infer_types import OutputTensor
from app.http.dialects.open_inference.tensors import find_model, infer, is_ready, metadata
from app.rpc.methods.conversion import reply_of, require_known
from app.rpc.methods.inference_protocol import open_inference_pb2 as wire
from app.rpc.methods.method import Fields, Method, validated

SERVICE = "inference.GRPCInferenceService"
# Where a tensor's values lie, and how they are packed where they come raw.
CONTENTS = {"BYTES": "bytes_contents", "INT64": "int64_contents", "FP32": "fp32_contents"}
PACKED = {"INT64": "q", "FP32": "f"}


def server_live(_service: Service, _fields: Fields) -> Iterator[Message]:
    yield wire.ServerLiveResponse(live=True)


def server_ready(service: Service, _fields: Fields) -> Iterator[Message]:
    yield wire.ServerReadyResponse(ready=is_server_ready(service.context))


def model_ready(service: Service, fields: Fields) -> Iterator[Message]:
    handle = find_model(service, fields.get("name", ""), fields.get("version", ""))
    yield wire.ModelReadyResponse(ready=is_ready(handle))


def described_server(_service: Service, _fields: Fields) -> Iterator[Message]:
    yield reply_of(wire.ServerMetadataResponse, server_metadata())


def described_model(service: Service, fields: Fields) -> Iterator[Message]:
    found = metadata(service, fields.get("name", ""), fields.get("version", ""))
    yield reply_of(wire.ModelMetadataResponse, found)


def inferred(service: Service, fields: Fields) -> Iterator[Message]:
    body = validated(service, InferBody, fields["body"])
    answer = infer(service, fields["model_name"], fields["model_version"], body)
    write = _raw if fields["is_raw"] else _typed
    yield wire.ModelInferResponse(
        model_name=answer["model_name"],
        model_version=answer["model_version"],
        id=answer.get("id", ""),
        **write(answer["outputs"]),
    )


def read_infer(message: Any, ignored: list[str] | None) -> Fields:
    """The body that says the same in JSON, and what of it stands in the path there. Raises a ``RequestError``."""
    for one in (message, *message.inputs, *message.outputs):
        require_known(one, ignored)
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        text = f"raw_input_contents: {len(raw)} for {len(message.inputs)} inputs"
        raise InvalidParameterError(text, param="raw_input_contents")
    body = {
        "id": message.id or None,
        "parameters": _parameters(message.parameters),
        "inputs": [_input(tensor, raw[at] if raw else None) for at, tensor in enumerate(message.inputs)],
        "outputs": [{"name": one.name, "parameters": _parameters(one.parameters)} for one in message.outputs] or None,
    }
    return {
        "model_name": message.model_name,
        "model_version": message.model_version,
        "is_raw": bool(raw),
        "body": {name: value for name, value in body.items() if value is not None},
    }


def _input(tensor: Any, raw: bytes | None) -> Fields:
    texts = list(tensor.contents.bytes_contents) if raw is None else list(_split(raw))
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "parameters": _parameters(tensor.parameters),
        "data": [_text(one) for one in texts],
    }


def _split(raw: bytes) -> Iterator[bytes]:
    """Each element, with its length in front. Raises ``InvalidParameterError``."""
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found = raw[at + 4 : at + 4 + size]
        if len(raw) < at + 4 or len(found) != size:
            text = "raw_input_contents: an element is shorter than its length says"
            raise InvalidParameterError(text, param="raw_input_contents")
        yield found
        at += 4 + size


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidParameterError("inputs: a text is not UTF-8", param="inputs") from None


def _parameters(given: Mapping[str, Any]) -> Fields | None:
    return {name: _value(name, one) for name, one in given.items()} or None


def _value(name: str, parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidParameterError(f"parameters: {name[:100]!r} has no value", param="parameters")
    return getattr(parameter, choice)


def _typed(outputs: Sequence[OutputTensor]) -> dict[str, Any]:
    return {"outputs": [{**_described(one), "contents": _contents(one)} for one in outputs]}


def _raw(outputs: Sequence[OutputTensor]) -> dict[str, Any]:
    """As the request came: clients that send their tensors raw read them so."""
    return {"outputs": [_described(one) for one in outputs], "raw_output_contents": [_packed(one) for one in outputs]}


def _described(tensor: OutputTensor) -> dict[str, Any]:
    return {"name": tensor["name"], "datatype": tensor["datatype"], "shape": tensor["shape"]}


def _contents(tensor: OutputTensor) -> dict[str, Any]:
    values = [one.encode() for one in tensor["data"]] if tensor["datatype"] == "BYTES" else tensor["data"]
    return {CONTENTS[tensor["datatype"]]: values}


def _packed(tensor: OutputTensor) -> bytes:
    if tensor["datatype"] == "BYTES":
        texts = [one.encode() for one in tensor["data"]]
        return b"".join(len(one).to_bytes(4, "little") + one for one in texts)
    return struct.pack(f"<{len(tensor['data'])}{PACKED[tensor['datatype']]}", *tensor["data"])


METHODS = {
    "ServerLive": Method(wire.ServerLiveRequest, server_live),
    "ServerReady": Method(wire.ServerReadyRequest, server_ready),
    "ModelReady": Method(wire.ModelReadyRequest, model_ready),
    "ServerMetadata": Method(wire.ServerMetadataRequest, described_server),
    "ModelMetadata": Method(wire.ModelMetadataRequest, described_model),
    "ModelInfer": Method(wire.ModelInferRequest, inferred, read=read_infer),
}
