"""text-embeddings-inference's ``/similarity``, and how alike the vectors of two texts are. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from flask import Response

from app.core.tasks.encoder_jobs import Cut, EncoderInput
from app.http.application.error_envelope import json_response
from app.http.requests.encoding import EncodeWith, Encoding
from app.http.resources.text_tasks.body_shapes import BodyShape, TextTaskRoute
from app.http.schemas.peer_bodies import TeiSimilarityBody
from app.serve.incoming.error_forms import tei_error

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel

Pairs = Sequence[tuple[str, str]]


def in_vectors(pairs: Pairs, cut: Cut | None, param: str = "text_2", prompt_name: str | None = None) -> EncodeWith:
    """A vector for each text of the pairs, once."""

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        return (model.read_prompted(text, prompt_name, cut=cut) for text in texts_of(pairs))

    return EncodeWith("embeddings", param, encode)


def texts_of(pairs: Pairs) -> list[str]:
    """The texts of the pairs, each once."""
    return list(dict.fromkeys(text for pair in pairs for text in pair))


def cosines(pairs: Pairs, encoding: Encoding) -> list[float]:
    """The cosine of the two vectors of each pair; 0 where one has no length."""
    vectors = [np.asarray(encoded.vector, dtype=np.float64) for _, encoded in encoding.read_encoded()]
    lengths = [np.linalg.norm(vector) for vector in vectors]
    units = [vector / length if length > 0 else vector for vector, length in zip(vectors, lengths, strict=True)]
    of_text = dict(zip(texts_of(pairs), units, strict=True))
    return [float(of_text[one] @ of_text[other]) for one, other in pairs]


def similarity(route: TextTaskRoute, body: TeiSimilarityBody) -> Response:
    """How alike each sentence is to the source: a bare list."""
    pairs = [(body.inputs.source_sentence, sentence) for sentence in body.inputs.sentences]
    told = body.parameters
    work = in_vectors(pairs, told.cut if told else None, "inputs", told.prompt_name if told else None)
    with route.open(work, None, body.inputs.source_sentence) as encoding:
        return json_response(cosines(pairs, encoding), headers=encoding.headers())


class Similarity(TextTaskRoute):
    """Says how alike sentences are to one."""

    shapes = (BodyShape("inputs", TeiSimilarityBody, similarity, tei_error, api="text-embeddings-inference"),)
