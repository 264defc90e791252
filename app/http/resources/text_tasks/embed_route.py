"""text-embeddings-inference's ``/embed``. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.core.tasks.encoder_jobs import EncodeOptions
from app.http.application.error_envelope import json_response
from app.http.requested.encodings import VectorInputs
from app.http.requests.encoding import EncodeWith
from app.http.resources.text_tasks.body_shapes import BodyShape, TextTaskRoute
from app.http.schemas.encoder_bodies import listed
from app.http.schemas.peer_bodies import TeiEmbedBody
from app.serve.incoming.error_forms import tei_error


def embed(route: TextTaskRoute, body: TeiEmbedBody) -> Response:
    """A bare list of vectors, also for one text."""
    given = VectorInputs(listed(body.inputs), "inputs", body.prompt_name, body.dimensions, body.cut)
    wanted = EncodeOptions(normalize=body.normalize, dimensions=body.dimensions)
    with route.open(EncodeWith("embeddings", "inputs", given.encode, wanted), None, body.inputs) as encoding:
        vectors = [list(encoded.vector) for _, encoded in encoding.read_encoded()]
        return json_response(vectors, headers=encoding.headers())


class Embed(TextTaskRoute):
    """Turns texts into vectors."""

    shapes = (BodyShape("inputs", TeiEmbedBody, embed, tei_error, api="text-embeddings-inference"),)
