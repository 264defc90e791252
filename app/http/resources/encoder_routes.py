"""``/fill-mask`` and ``/v1/embeddings``. HTTP threads."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Response

from app.core.errors import InvalidParameterError
from app.core.parsing.token_ids import require_token_ids
from app.core.tasks.encoder_jobs import Cut, EncodeOptions, EncoderInput
from app.http.answers.openai_types import Embedding, EmbeddingList, InputUsage
from app.http.application.error_envelope import json_response
from app.http.application.request_log import record
from app.http.application.restful import Route
from app.http.reading.body import read_body
from app.http.requests.encoding import EncodeWith
from app.http.requests.opening import open_request
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs
from app.http.schemas.encoder_bodies import MAX_PROPOSALS, EmbeddingsBody, FillMaskBody
from app.http.schemas.hub_bodies import HubFillMaskBody

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel


def fill_mask(route: Route, body: FillMaskBody) -> Response:
    """What transformers' pipeline answers; a list of that for a list of texts."""
    line = record()
    line.recordid = body.recordid
    line.prompt = body.text
    handle = route.service.choose(body.model, "fill-mask")
    work = EncodeWith("fill-mask", "text", lambda model: encode_texts(body, model), EncodeOptions(body.top_k))
    with open_request(route.service.context, handle, work) as encoding:
        answers = [encoding.encoder.filled(given.ids, encoded) for given, encoded in encoding.read_encoded()]
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


def encode_texts(body: FillMaskBody, model: EncoderModel) -> Iterator[EncoderInput]:
    """Each text. Raises ``InvalidParameterError`` without masks, or with too many proposals."""
    num_proposals = 0
    for text in body.texts:
        ids = model.encode_masked(text)
        num_proposals += model.num_masks(ids) * body.top_k
        yield EncoderInput(ids)
    if num_proposals > MAX_PROPOSALS:
        message = f"top_k: {num_proposals} proposals for all masks are above the bound of {MAX_PROPOSALS}"
        raise InvalidParameterError(message, param="top_k")


class Embeddings(Route):
    """Turns texts into vectors; OpenAI's API."""

    def post(self) -> Response:
        body = read_body(EmbeddingsBody)
        record().prompt = body.input
        handle = self.service.choose(body.model, "embeddings")
        given = VectorInputs(body.inputs, "input", body.prompt_name, body.dimensions)
        work = EncodeWith("embeddings", "input", given.encode, EncodeOptions(dimensions=body.dimensions))
        with open_request(self.service.context, handle, work) as encoding:
            vectors = [encoded.vector for _, encoded in encoding.read_encoded()]
            data: list[Embedding] = [
                {"object": "embedding", "index": index, "embedding": write_vector(vector, body)}
                for index, vector in enumerate(vectors)
            ]
            num_tokens = encoding.usage()["prompt_tokens"]
            usage: InputUsage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
            answer: EmbeddingList = {"object": "list", "data": data, "model": encoding.model, "usage": usage}
            return json_response(answer, headers=encoding.headers())


@dataclass(frozen=True, slots=True)
class VectorInputs:
    """Texts or token ids, ``param`` in the body, to be turned into vectors."""

    inputs: Sequence[str | list[int]]
    param: str
    prompt_name: str | None
    dimensions: int | None
    cut: Cut | None = None

    def encode(self, model: EncoderModel) -> Iterator[EncoderInput]:
        """Each input. Raises ``InvalidParameterError``."""
        if self.dimensions is not None and self.dimensions > model.num_dimensions:
            text = f"dimensions: the vectors of the model {model.name} have {model.num_dimensions}"
            raise InvalidParameterError(text, param="dimensions")
        ids = [one for one in self.inputs if not isinstance(one, str)]
        if ids and self.prompt_name is not None:
            raise InvalidParameterError("prompt_name: token ids have no prompt", param="prompt_name")
        for tokens in ids:
            require_token_ids(tokens, model.vocab_size, self.param)
        for one in self.inputs:
            if isinstance(one, str):
                yield model.read_prompted(one, self.prompt_name, cut=self.cut)
            else:
                yield EncoderInput(one)


def write_vector(vector: tuple[float, ...], body: EmbeddingsBody) -> list[float] | str:
    """The numbers, or base64 of them as little-endian float32."""
    if body.encoding_format != "base64":
        return list(vector)
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")
