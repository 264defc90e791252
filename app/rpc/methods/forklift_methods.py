"""The methods of ``forklift.v1``: which body a request is, how it is asked, and what it is answered with.

Any thread. What a method does beyond names of fields is done by ``app/http``, as for HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from google.protobuf.message import Message

from app.client.connection.protocol import forklift_pb2 as wire
from app.core.errors import LoadingError, UnsupportedParameterError
from app.http.answers.native_shapes import ChatShape, CompletionShape
from app.http.application.service import Service
from app.http.reading.strict_json import dump
from app.http.requested.encodings import by_mask, detokenize, embedding, filling_masks, tokenize
from app.http.requested.texts import TextRequest, ask_chat, ask_completion, ask_infill
from app.http.requests.opening import open_request
from app.http.requests.running import RunningRequest
from app.http.resources.capabilities_route import describe
from app.http.resources.infill_route import InfillShape
from app.http.schemas.encoder_bodies import EmbeddingsBody, FillMaskBody
from app.http.schemas.infill_body import InfillBody
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.token_bodies import DetokenizeBody, TokenizeBody
from app.rpc.methods.conversion import reply_of
from app.rpc.methods.method import Answer, Fields, Method, validated

Ask: TypeAlias = Callable[[Service, Fields], TextRequest]

SERVICE = "forklift.v1.Forklift"


def completion(service: Service, fields: Fields) -> TextRequest:
    body = validated(service, CompleteBody, fields)
    return ask_completion(service, body, CompletionShape(body))


def chat(service: Service, fields: Fields) -> TextRequest:
    body = validated(service, ChatBody, fields)
    return ask_chat(service, body, ChatShape(body))


def infill(service: Service, fields: Fields) -> TextRequest:
    body = validated(service, InfillBody, fields)
    return ask_infill(service, body, InfillShape(body))


def whole(ask: Ask, reply: type[Message]) -> Answer:
    """The answer of a generating method in one message."""

    def answer(service: Service, fields: Fields) -> Iterator[Message]:
        if fields.get("stream"):
            raise UnsupportedParameterError("stream: call the method whose name ends in Stream", param="stream")
        asked = ask(service, fields)
        with open_request(service.context, asked.handle, asked.work) as generation:
            generation.read_all()
            yield reply_of(reply, _object(asked.shape.whole(generation)))

    return answer


def streamed(ask: Ask, piece: type[Message], reply: type[Message]) -> Answer:
    """The same piece by piece; the last piece holds how it ended."""

    def answer(service: Service, fields: Fields) -> Iterator[Message]:
        asked = ask(service, {**fields, "stream": True})
        with open_request(service.context, asked.handle, asked.work) as generation:
            for event in _events(asked, generation):
                yield reply_of(piece, _object(event))
            for event in asked.shape.last(generation):
                yield piece(end=reply_of(reply, _object(event)))

    return answer


def _events(asked: TextRequest, generation: RunningRequest) -> Iterator[object]:
    yield from asked.shape.first(generation)
    while True:
        batch = generation.next_batch()
        assert batch is not None, "without a timeout something comes"
        for piece in batch.pieces:
            yield from asked.shape.piece(piece, generation)
        if batch.error is not None:
            raise batch.error
        if batch.is_last:
            return


def _object(answer: object) -> dict[str, Any]:
    assert isinstance(answer, dict), "the native routes answer objects"
    return answer


def fill_mask(service: Service, fields: Fields) -> Iterator[Message]:
    with filling_masks(service, validated(service, FillMaskBody, fields)) as (answers, _):
        yield wire.FillMaskReply(texts=[{"masks": [{"proposals": one} for one in by_mask(text)]} for text in answers])


def embed(service: Service, fields: Fields) -> Iterator[Message]:
    with embedding(service, validated(service, EmbeddingsBody, fields)) as (vectors, encoding):
        num_tokens = encoding.usage()["prompt_tokens"]
        yield wire.EmbedReply(
            data=[wire.Embedding(embedding=vector) for vector in vectors],
            model=encoding.model,
            usage=wire.InputUsage(prompt_tokens=num_tokens, total_tokens=num_tokens),
        )


def tokens(service: Service, fields: Fields) -> Iterator[Message]:
    yield reply_of(wire.TokenizeReply, tokenize(service, validated(service, TokenizeBody, fields)))


def text(service: Service, fields: Fields) -> Iterator[Message]:
    # No tokens at all are no field in a message, and an empty text.
    yield reply_of(
        wire.DetokenizeReply, detokenize(service, validated(service, DetokenizeBody, {"tokens": [], **fields}))
    )


def capabilities(service: Service, _fields: Fields) -> Iterator[Message]:
    found = [describe(handle, service.adapters) for handle in service.handles]
    if not found:
        raise LoadingError("no model is there yet")
    yield wire.CapabilitiesReply(data=[reply_of(wire.ModelCapabilities, {**one, "json": dump(one)}) for one in found])


METHODS = {
    "Complete": Method(wire.CompleteRequest, whole(completion, wire.CompleteReply)),
    "CompleteStream": Method(
        wire.CompleteRequest, streamed(completion, wire.CompletePiece, wire.CompleteReply), is_streamed=True
    ),
    "Chat": Method(wire.ChatRequest, whole(chat, wire.ChatReply)),
    "ChatStream": Method(wire.ChatRequest, streamed(chat, wire.ChatPiece, wire.ChatReply), is_streamed=True),
    "Infill": Method(wire.InfillRequest, whole(infill, wire.InfillReply)),
    "InfillStream": Method(wire.InfillRequest, streamed(infill, wire.InfillPiece, wire.InfillReply), is_streamed=True),
    "FillMask": Method(wire.FillMaskRequest, fill_mask),
    "Embed": Method(wire.EmbedRequest, embed),
    "Tokenize": Method(wire.TokenizeRequest, tokens),
    "Detokenize": Method(wire.DetokenizeRequest, text),
    "Capabilities": Method(wire.CapabilitiesRequest, capabilities),
}
