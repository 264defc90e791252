"""Requests for text: a body, the model it means, the work, and the shape of its answer. HTTP threads.

The log line of the request is told what is asked; nothing is admitted yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.http.answers.native_shapes import ChatShape, CompletionShape, Shape
from app.http.application.request_log import record
from app.http.application.service import Service
from app.http.requests.generating import Encode, Generate
from app.http.requests.infilling import FillHoles
from app.http.requests.opening import Work
from app.http.requests.running import RunningRequest
from app.http.schemas.infill_body import InfillBody
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.sampling_fields import SamplingOptions

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle


@dataclass(frozen=True, slots=True)
class TextRequest:
    """What is to be generated, by which model, and how it is told."""

    work: Work[RunningRequest]
    handle: ModelHandle
    body: SamplingOptions
    shape: Shape

    @property
    def may_take_long(self) -> bool:
        """Whether opening it may have to load a model or compile a grammar."""
        return self.handle.model is None or self.body.has_grammar


def ask_completion(service: Service, body: CompleteBody, shape: CompletionShape) -> TextRequest:
    """Continue a text. Raises ``ModelNotFoundError``."""
    handle = handle_of(service, body)
    return ask(handle, body, shape, lambda model: [model.encode(body.text)], body.text)


def ask_chat(service: Service, body: ChatBody, shape: ChatShape) -> TextRequest:
    """Answer a conversation. Raises ``ModelNotFoundError``."""
    handle = handle_of(service, body)
    messages = body.conversation(handle.settings.system_prompt)
    return ask(handle, body, shape, lambda model: [model.encode_chat(messages)], messages)


def ask_infill(service: Service, body: InfillBody, shape: Shape) -> TextRequest:
    """Fill holes. Raises ``ModelNotFoundError``."""
    handle = handle_of(service, body)
    record().prompt = body.texts
    return TextRequest(FillHoles(body), handle, body, shape)


def ask(handle: ModelHandle, body: SamplingOptions, shape: Shape, encode: Encode, prompt: object) -> TextRequest:
    """Generate for the prompts that ``encode`` makes; ``prompt`` is what the log may show of them."""
    record().prompt = prompt
    return TextRequest(Generate(body, encode), handle, body, shape)


def handle_of(service: Service, body: SamplingOptions) -> ModelHandle:
    """The model that the request means. Raises ``ModelNotFoundError``."""
    record().recordid = body.record_key
    return service.choose(body.model, "generate")
