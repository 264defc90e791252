"""What all generating routes do after they have read their body. HTTP threads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flask import Response, request

from app.http.answers.native_shapes import ChatShape, CompletionShape, Shape
from app.http.answers.stream import Writer, choose_writer, stream_response
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.requested.texts import TextRequest, ask, ask_chat, ask_completion, handle_of
from app.http.requests.generating import Encode
from app.http.requests.opening import open_request
from app.http.requests.running import RunningRequest
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.sampling_fields import SamplingOptions

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle


class TextRoute(Route):
    """Completes or chats, and answers whole or as a stream."""

    def complete(self, body: CompleteBody, shape: CompletionShape) -> Response:
        return self.send(ask_completion(self.service, body, shape))

    def chat(self, body: ChatBody, shape: ChatShape) -> Response:
        return self.send(ask_chat(self.service, body, shape))

    def handle_of(self, body: SamplingOptions) -> ModelHandle:
        """The model that the request means. Raises ``ModelNotFoundError``."""
        return handle_of(self.service, body)

    def answer(
        self, handle: ModelHandle, body: SamplingOptions, shape: Shape, encode: Encode, prompt: object
    ) -> Response:
        return self.send(ask(handle, body, shape, encode, prompt))

    def send(self, asked: TextRequest) -> Response:
        """The answer in the form that the body asks for."""
        open_generation = partial(open_request, self.service.context, asked.handle, asked.work)
        if not asked.body.stream:
            return _whole(open_generation(), asked.shape)
        writer = self.writer(asked.body, asked.shape)
        return stream_response(open_generation, writer, self.service.ping_interval_s, may_take_long=asked.may_take_long)

    def writer(self, body: SamplingOptions, shape: Shape) -> Writer:
        """The form of a stream."""
        return choose_writer(request, shape, body.num_choices)


def _whole(generation: RunningRequest, shape: Shape) -> Response:
    with generation:
        generation.read_all()
        return json_response(shape.whole(generation), headers=generation.headers())
