"""``/zero-shot``: texts by labels that the request brings. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from flask import Response

from app.core.errors import ContextLengthError, InvalidParameterError
from app.core.tasks.encoder_jobs import EncoderInput
from app.http.answers.task_types import LabelScore, ZeroShotLabels
from app.http.application.error_envelope import json_response
from app.http.requests.encoding import EncodeWith
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs
from app.http.schemas.hub_bodies import HubZeroShotBody
from app.http.schemas.text_task_bodies import MAX_PAIRS, ZeroShotBody

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel

PLACE = "{}"


def zero_shot(route: TextTaskRoute, body: ZeroShotBody) -> Response:
    """What transformers' pipeline answers; a list of that for a list of texts."""
    found, headers = told(route, body)
    return json_response(found[0] if isinstance(body.text, str) else found, headers=headers)


def hub_zero_shot(route: TextTaskRoute, body: HubZeroShotBody) -> Response:
    """A list of labels with their scores."""
    with naming_inputs():
        [found], headers = told(route, body.own())
    pairs = zip(found["labels"], found["scores"], strict=True)
    shown: list[LabelScore] = [{"label": label, "score": score} for label, score in pairs]
    return json_response(shown, headers=headers)


def told(route: TextTaskRoute, body: ZeroShotBody) -> tuple[list[ZeroShotLabels], dict[str, str]]:
    """The labels of each text, best first, and the headers of the answer. Raises a ``RequestError``."""
    texts = [body.text] if isinstance(body.text, str) else body.text
    sentences = hypotheses(body, len(texts))

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        cut = None if body.cut is None else replace(body.cut, strategy="only_first")
        for sentence in sentences:
            if len(model.encode(sentence)) >= model.context_tokens:
                text = "candidate_labels: a label in its sentence leaves no room for a text in the context"
                raise ContextLengthError(text, param="candidate_labels")
        return model.read_pairs(((text, sentence) for text in texts for sentence in sentences), cut=cut)

    with route.open(EncodeWith("zero-shot", "text", encode), body.model, body.text, body.recordid) as encoding:
        logits = [one.logits for _, one in encoding.read_encoded()]
        size = len(sentences)
        scores = [
            encoding.encoder.labels.zero_shot(logits[at : at + size], each_alone=body.multi_label)
            for at in range(0, len(logits), size)
        ]
        return [ranked(*one, body.labels) for one in zip(texts, scores, strict=True)], encoding.headers()


def hypotheses(body: ZeroShotBody, num_texts: int) -> list[str]:
    """A sentence for each label. Raises ``InvalidParameterError``.

    The label takes the place of the braces and nothing else is read into the template: a caller's format could be told
    to write gigabytes, or to read attributes.
    """
    if PLACE not in body.hypothesis_template:
        message = "hypothesis_template: has no {} for the label"
        raise InvalidParameterError(message, param="hypothesis_template")
    if not 0 < num_texts * len(body.labels) <= MAX_PAIRS:
        message = f"candidate_labels: texts times labels must be 1 to {MAX_PAIRS}, not {num_texts * len(body.labels)}"
        raise InvalidParameterError(message, param="candidate_labels")
    return [body.hypothesis_template.replace(PLACE, label) for label in body.labels]


def ranked(text: str, scores: list[float], labels: list[str]) -> ZeroShotLabels:
    """Labels and scores, best first."""
    order = sorted(range(len(labels)), key=lambda index: scores[index], reverse=True)
    return {
        "sequence": text,
        "labels": [labels[index] for index in order],
        "scores": [scores[index] for index in order],
    }


class ZeroShot(TextTaskRoute):
    """Says which labels of the request fit a text."""

    shapes = (
        BodyShape("text", ZeroShotBody, zero_shot),
        BodyShape("inputs", HubZeroShotBody, hub_zero_shot, api=HUB),
    )
