"""``/tokenize`` and ``/detokenize``. HTTP threads; the tokenizer runs here, under the model's lock."""

from __future__ import annotations

from flask import Response

from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.reading.body import read_body
from app.http.requested.encodings import detokenize, tokenize
from app.http.schemas.token_bodies import DetokenizeBody, TokenizeBody


class Tokenize(Route):
    """Text to ids."""

    def post(self) -> Response:
        return json_response(tokenize(self.service, read_body(TokenizeBody)))


class Detokenize(Route):
    """Ids to text."""

    def post(self) -> Response:
        return json_response(detokenize(self.service, read_body(DetokenizeBody)))
