"""OpenAI's API: completions, chat, models. HTTP threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask import Response

from app.core.errors import UnsupportedParameterError
from app.core.parsing.token_ids import require_token_ids
from app.http.answers.chat_shape import ChatCompletionsShape
from app.http.answers.completions_shape import CompletionsShape, FimShape
from app.http.answers.openai_types import ModelEntry, ModelList
from app.http.application.error_envelope import json_response
from app.http.application.request_log import record
from app.http.application.restful import Route
from app.http.application.service import Service
from app.http.dialects.chat_route import ChatRoute, EventsRoute
from app.http.reading.body import read_body
from app.http.requested.texts import TextRequest
from app.http.requests.converting import CompletePrompts
from app.http.schemas.chat_body import ChatCompletionsBody
from app.http.schemas.completions_body import CompletionsBody
from app.http.schemas.fim_body import FimBody

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle
    from app.models.text_model import TextModel
    from app.models.tokens.infill import InfillPrompt


class Completions(EventsRoute):
    """Continues texts, fills a hole before a suffix, or scores prompts."""

    def post(self) -> Response:
        body = read_body(CompletionsBody)
        record().prompt = body.prompt
        handle = self.service.choose(body.model, "generate", "seq2seq")
        work = CompletePrompts(body, lambda model: encode_prompts(body, model))
        return self.send(TextRequest(work, handle, body, CompletionsShape(body)))


class ChatCompletions(ChatRoute):
    """Answers a conversation."""

    def post(self) -> Response:
        body = read_body(ChatCompletionsBody)
        return self.converse(body, ChatCompletionsShape(body))


class FimCompletions(EventsRoute):
    """Fills a hole, as Mistral's API has it."""

    def post(self) -> Response:
        body = read_body(FimBody)
        handle = self.handle_of(body)
        texts = [body.prompt, body.suffix or ""]
        return self.answer(handle, body, FimShape(body), lambda model: encode_prompts(body, model), texts)


class Models(Route):
    """The models that are served."""

    def get(self) -> Response:
        data = [describe(handle, self.service) for handle in (*self.service.handles, *self.service.adapters.handles)]
        models: ModelList = {"object": "list", "data": data}
        return json_response(models)


class Model(Route):
    """One model by name; names may hold slashes."""

    def get(self, name: str) -> Response:
        return json_response(describe(self.service.find(name), self.service))


def encode_prompts(body: CompletionsBody | FimBody, model: TextModel) -> Sequence[list[int] | InfillPrompt]:
    """The ids of each prompt. Raises a ``RequestError`` for ids that the model has not."""
    if body.suffix and isinstance(body.prompt, str):
        return [encode_suffix(body.prompt, body.suffix, model)]
    for prompt in body.prompts:
        if not isinstance(prompt, str):
            require_token_ids(prompt, model.vocab_size, "prompt")
    return [model.encode(prompt) if isinstance(prompt, str) else prompt for prompt in body.prompts]


def encode_suffix(prompt: str, suffix: str, model: TextModel) -> InfillPrompt:
    """The prompt of the hole between the two. Raises ``UnsupportedParameterError`` where the model has no holes."""
    if not model.has_infill:
        raise UnsupportedParameterError(f"suffix: the model {model.name} does not fill holes", param="suffix")
    return model.encode_infill([prompt, suffix], [])


def describe(handle: ModelHandle, service: Service) -> ModelEntry:
    """OpenAI's model object and our ``state``; ``created`` is when it was loaded, or the server started."""
    created_s = service.created_s if handle.model is None else handle.model.created_s
    entry: ModelEntry = {
        "id": handle.name,
        "object": "model",
        "created": created_s,
        "owned_by": "forklift",
        "state": handle.state,
    }
    return entry if handle.parent is None else {**entry, "parent": handle.parent}
