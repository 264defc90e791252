"""``/entities``: what the tokens of a text are. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Response

from app.core.errors import InvalidParameterError
from app.core.tasks.encoder_jobs import EncoderInput
from app.http.application.error_envelope import json_response
from app.http.requests.encoding import EncodeWith
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs
from app.http.schemas.hub_bodies import HubEntitiesBody
from app.http.schemas.text_task_bodies import EntitiesBody

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel


def entities(route: TextTaskRoute, body: EntitiesBody) -> Response:
    """What transformers' pipeline answers; a list of that for a list of texts."""
    texts = [body.text] if isinstance(body.text, str) else body.text
    check_stride(body)
    num_parts: list[int] = []

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        for text in texts:
            parts = parts_of(text, body, model)
            num_parts.append(len(parts))
            yield from parts

    with route.open(EncodeWith("entities", "text", encode), body.model, body.text, body.recordid) as encoding:
        encoded = iter(encoding.read_encoded())
        found = [
            encoding.encoder.find_entities(
                text, [next(encoded) for _ in range(count)], body.aggregation_strategy, body.ignore_labels
            )
            for text, count in zip(texts, num_parts, strict=True)
        ]
        return json_response(found[0] if isinstance(body.text, str) else found, headers=encoding.headers())


def hub_entities(route: TextTaskRoute, body: HubEntitiesBody) -> Response:
    """The same."""
    with naming_inputs():
        return entities(route, body.own())


def check_stride(body: EntitiesBody) -> None:
    """Raise ``InvalidParameterError`` for a text in parts that cannot be put together again."""
    if body.stride is None:
        return
    if body.aggregation_strategy == "none":
        raise InvalidParameterError("stride: needs an aggregation_strategy other than none", param="stride")
    if body.truncate:
        raise InvalidParameterError("truncate: cannot be sent together with stride", param="truncate")


def parts_of(text: str, body: EntitiesBody, model: EncoderModel) -> list[EncoderInput]:
    """The whole text, or its parts. Raises a ``RequestError``."""
    if body.stride is None:
        return [model.read(text, cut=body.cut, has_places=True)]
    if not model.tokenizer.is_fast:
        raise InvalidParameterError("stride: needs a fast tokenizer, which this model has not", param="stride")
    if body.stride >= model.context_tokens - len(model.encode("")):
        message = f"stride: must be less than a part of {model.context_tokens} tokens has room for"
        raise InvalidParameterError(message, param="stride")
    return model.windows(text, num_tokens=model.context_tokens, overlap=body.stride)


class Entities(TextTaskRoute):
    """Finds entities in texts."""

    shapes = (
        BodyShape("text", EntitiesBody, entities),
        BodyShape("inputs", HubEntitiesBody, hub_entities, api=HUB),
    )
