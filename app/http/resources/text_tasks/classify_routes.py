"""``/classify``, also as vLLM has it, and text-embeddings-inference's ``/predict``. HTTP threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Response

from app.core.errors import InvalidParameterError
from app.core.tasks.encoder_jobs import EncoderInput
from app.http.answers.task_types import LabelScore, VllmClass, VllmClasses
from app.http.application.error_envelope import json_response
from app.http.requests.encoding import EncodeWith
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs, token_usage
from app.http.schemas.hub_bodies import HubClassifyBody
from app.http.schemas.peer_bodies import TeiPredictBody, VllmClassifyBody
from app.http.schemas.text_task_bodies import ClassifyBody
from app.serve.incoming.error_forms import tei_error

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel


def classify(route: TextTaskRoute, body: ClassifyBody) -> Response:
    """What transformers' pipeline answers; a list of that for a list of texts."""
    found, headers = classified(route, body)
    return json_response(found[0] if isinstance(body.text, str) else found, headers=headers)


def hub_classify(route: TextTaskRoute, body: HubClassifyBody) -> Response:
    """A list of lists, also for one text."""
    with naming_inputs():
        found, headers = classified(route, body.own())
    return json_response(found, headers=headers)


def classified(route: TextTaskRoute, body: ClassifyBody) -> tuple[list[list[LabelScore]], dict[str, str]]:
    """The best labels of each text, and the headers of the answer. Raises a ``RequestError``."""
    pairs = paired(body)

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        return (model.read(text, other, cut=body.cut) for text, other in pairs)

    with route.open(EncodeWith("classify", "text", encode), body.model, body.text, body.recordid) as encoding:
        labels = encoding.encoder.labels
        found = [labels.ranked(one.logits, body.top_k, body.function_to_apply) for _, one in encoding.read_encoded()]
        return found, encoding.headers()


def paired(body: ClassifyBody) -> list[tuple[str, str | None]]:
    """Each text with the one that it is paired with. Raises ``InvalidParameterError``."""
    texts, others = ([one] if isinstance(one, str) else one for one in (body.text, body.text_pair or []))
    if not others:
        return [(text, None) for text in texts]
    if len(others) != len(texts) or isinstance(body.text, str) != isinstance(body.text_pair, str):
        message = f"text_pair: has {len(others)} texts, text has {len(texts)}; send both as a text, or as equal lists"
        raise InvalidParameterError(message, param="text_pair")
    return list(zip(texts, others, strict=True))


def vllm_classify(route: TextTaskRoute, body: VllmClassifyBody) -> Response:
    """The probabilities of all labels, in their order."""

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        return (model.read(text, cut=body.cut) for text in body.texts)

    with route.open(EncodeWith("classify", "input", encode), body.model, body.input) as encoding:
        labels = encoding.encoder.labels
        data: list[VllmClass] = []
        for index, (_, one) in enumerate(encoding.read_encoded()):
            probs = labels.scores(one.logits, None if body.use_activation else "none")
            best = labels.names[probs.index(max(probs))]
            data.append({"index": index, "label": best, "probs": probs, "num_classes": len(probs)})
        answer: VllmClasses = {
            "id": f"classify-{encoding.request_id}",
            "object": "list",
            "created": int(time.time()),
            "model": encoding.model,
            "data": data,
            "usage": {**token_usage(encoding), "completion_tokens": 0},
        }
        return json_response(answer, headers=encoding.headers())


def tei_predict(route: TextTaskRoute, body: TeiPredictBody) -> Response:
    """All labels of a text, best first; a list of that for a list of lists."""

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        return (model.read(*one, cut=body.cut) for one in body.pairs)

    with route.open(EncodeWith("classify", "inputs", encode), None, body.inputs) as encoding:
        labels = encoding.encoder.labels
        found = [
            labels.ranked(one.logits, None, "none" if body.raw_scores else None) for _, one in encoding.read_encoded()
        ]
        return json_response(found if body.is_batch else found[0], headers=encoding.headers())


class Predict(TextTaskRoute):
    """Says which of the model's labels fit a text; text-embeddings-inference's API."""

    shapes = (BodyShape("inputs", TeiPredictBody, tei_predict, tei_error, api="text-embeddings-inference"),)


class Classify(TextTaskRoute):
    """Says which of the model's labels fit a text."""

    shapes = (
        BodyShape("text", ClassifyBody, classify),
        BodyShape("input", VllmClassifyBody, vllm_classify, api="vLLM"),
        BodyShape("inputs", HubClassifyBody, hub_classify, api=HUB),
    )
