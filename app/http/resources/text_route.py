"""What all generating routes do after they have read their body. HTTP threads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flask import Response, request

from app.http.answers.native_shapes import ChatShape, CompletionShape, Shape
from app.http.answers.stream import Writer, choose_writer, stream_response
from app.http.application.error_envelope import json_response
from app.http.application.request_log import record
from app.http.application.restful import Route
from app.http.requests.generating import Encode, Generate
from app.http.requests.opening import Work, open_request
from app.http.requests.running import RunningRequest
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.sampling_fields import SamplingOptions

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle


class TextRoute(Route):
    """Completes or chats, and answers whole or as a stream."""

    def complete(self, body: CompleteBody, shape: CompletionShape) -> Response:
        return self.answer(self.handle_of(body), body, shape, lambda model: [model.encode(body.text)], body.text)

    def chat(self, body: ChatBody, shape: ChatShape) -> Response:
        handle = self.handle_of(body)
        messages = body.conversation(handle.settings.system_prompt)
        return self.answer(handle, body, shape, lambda model: [model.encode_chat(messages)], messages)

    def handle_of(self, body: SamplingOptions) -> ModelHandle:
        """The model that the request means. Raises ``ModelNotFoundError``."""
        record().recordid = body.record_key
        return self.service.choose(body.model, "generate")

    def answer(
        self, handle: ModelHandle, body: SamplingOptions, shape: Shape, encode: Encode, prompt: object
    ) -> Response:
        record().prompt = prompt
        return self.send(Generate(body, encode), handle, body, shape)

    def send(self, work: Work[RunningRequest], handle: ModelHandle, body: SamplingOptions, shape: Shape) -> Response:
        """The answer in the form that the body asks for."""
        open_generation = partial(open_request, self.service.context, handle, work)
        if not body.stream:
            return _whole(open_generation(), shape)
        may_take_long = handle.model is None or body.has_grammar
        writer = self.writer(body, shape)
        return stream_response(open_generation, writer, self.service.ping_interval_s, may_take_long=may_take_long)

    def writer(self, body: SamplingOptions, shape: Shape) -> Writer:
        """The form of a stream."""
        return choose_writer(request, shape, body.num_choices)


def _whole(generation: RunningRequest, shape: Shape) -> Response:
    with generation:
        generation.read_all()
        return json_response(shape.whole(generation), headers=generation.headers())
