"""``/translate`` and ``/summarize``, also as Hugging Face's clients ask for them. HTTP threads."""

from __future__ import annotations

from functools import partial

from flask import Response

from app.http.answers.native_shapes import Shape
from app.http.answers.seq2seq_shapes import ConversionShape, HubShape
from app.http.answers.stream import EventWriter, stream_response
from app.http.application.error_envelope import json_response
from app.http.application.request_log import record
from app.http.requests.converting import Convert, Instruct
from app.http.requests.opening import open_request
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs
from app.http.schemas.seq2seq_bodies import (
    ConversionBody,
    HubSummarizeBody,
    HubTranslateBody,
    SummarizeBody,
    TranslateBody,
)


def convert(route: TextTaskRoute, body: ConversionBody, instruct: Instruct, shape: Shape) -> Response:
    """The texts that are made, whole or as a stream."""
    line = record()
    line.recordid, line.prompt = body.recordid, body.text
    handle = route.service.choose(body.model, "seq2seq")
    opening = partial(open_request, route.service.context, handle, Convert(body, instruct))
    if body.stream:
        interval_s = route.service.ping_interval_s
        return stream_response(opening, EventWriter(shape), interval_s, may_take_long=handle.model is None)
    with opening() as running:
        running.read_all()
        return json_response(shape.whole(running), headers=running.headers())


def translate(route: TextTaskRoute, body: TranslateBody) -> Response:
    """A translation of each text."""
    return convert(route, body, translating(body), ConversionShape("translation", body))


def hub_translate(route: TextTaskRoute, hub: HubTranslateBody) -> Response:
    """A list of objects."""
    with naming_inputs():
        body = hub.own()
        return convert(route, body, translating(body), HubShape("translation_text", body))


def translating(body: TranslateBody) -> Instruct:
    """How the model is told the languages."""
    return lambda model: model.languages.instruction(body.src_lang, body.tgt_lang)


def summarize(route: TextTaskRoute, body: SummarizeBody) -> Response:
    """A summary of each text."""
    return convert(route, body, lambda model: model.to_summarize(), ConversionShape("summary", body))


def hub_summarize(route: TextTaskRoute, hub: HubSummarizeBody) -> Response:
    """A list of objects."""
    with naming_inputs():
        body = hub.own()
        return convert(route, body, lambda model: model.to_summarize(), HubShape("summary_text", body))


class Translate(TextTaskRoute):
    """Says a text in another language."""

    shapes = (
        BodyShape("text", TranslateBody, translate),
        BodyShape("inputs", HubTranslateBody, hub_translate, api=HUB),
    )


class Summarize(TextTaskRoute):
    """Says a text in fewer words."""

    shapes = (
        BodyShape("text", SummarizeBody, summarize),
        BodyShape("inputs", HubSummarizeBody, hub_summarize, api=HUB),
    )
