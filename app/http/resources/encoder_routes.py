"""``/fill-mask`` and ``/v1/embeddings``. HTTP threads."""

from __future__ import annotations

import array
import base64
import sys

from flask import Response

from app.http.answers.openai_types import Embedding, EmbeddingList, InputUsage
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.reading.body import read_body
from app.http.requested.encodings import embedding, filling_masks
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs
from app.http.schemas.encoder_bodies import EmbeddingsBody, FillMaskBody
from app.http.schemas.hub_bodies import HubFillMaskBody


def fill_mask(route: Route, body: FillMaskBody) -> Response:
    """What transformers' pipeline answers; a list of that for a list of texts."""
    with filling_masks(route.service, body) as (answers, encoding):
        return json_response(answers[0] if isinstance(body.text, str) else answers, headers=encoding.headers())


def hub_fill_mask(route: TextTaskRoute, body: HubFillMaskBody) -> Response:
    """The same."""
    with naming_inputs():
        return fill_mask(route, body.own())


class FillMask(TextTaskRoute):
    """Proposes tokens for masks."""

    shapes = (
        BodyShape("text", FillMaskBody, fill_mask),
        BodyShape("inputs", HubFillMaskBody, hub_fill_mask, api=HUB),
    )


class Embeddings(Route):
    """Turns texts into vectors; OpenAI's API."""

    def post(self) -> Response:
        body = read_body(EmbeddingsBody)
        with embedding(self.service, body) as (vectors, encoding):
            data: list[Embedding] = [
                {"object": "embedding", "index": index, "embedding": write_vector(vector, body)}
                for index, vector in enumerate(vectors)
            ]
            num_tokens = encoding.usage()["prompt_tokens"]
            usage: InputUsage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
            answer: EmbeddingList = {"object": "list", "data": data, "model": encoding.model, "usage": usage}
            return json_response(answer, headers=encoding.headers())


def write_vector(vector: tuple[float, ...], body: EmbeddingsBody) -> list[float] | str:
    """The numbers, or base64 of them as little-endian float32."""
    if body.encoding_format != "base64":
        return list(vector)
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")
