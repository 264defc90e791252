"""``/tokenize`` and ``/detokenize``. HTTP threads; the tokenizer runs here, under the model's lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flask import Response

from app.http.answers import native_types as native
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.reading.body import read_body
from app.http.requests.limits import naming
from app.http.requests.opening import admit
from app.http.schemas.token_bodies import DetokenizeBody, TokenizeBody

if TYPE_CHECKING:
    from app.models.served_model import ServedModel


class TokenRoute(Route):
    """Tokenizing takes a place as generating does: it is the first thing that overload must stop."""

    @contextmanager
    def model(self, name: str | None) -> Iterator[ServedModel]:
        """The model for as long as the block holds the place. Raises a ``RequestError``."""
        with admit(self.service.context, self.service.choose(name, None)) as admitted:
            yield admitted.model
            admitted.release()


class Tokenize(TokenRoute):
    """Text to ids."""

    def post(self) -> Response:
        body = read_body(TokenizeBody)
        with self.model(body.model) as model:
            with naming("text"):
                ids = model.encode(body.given, add_special_tokens=body.add_special_tokens)
            answer: native.Tokens = {
                "tokens": ids,
                "token_strings": model.token_strings(ids),
                "count": len(ids),
                "max_context": model.context_tokens,
            }
        return json_response(answer)


class Detokenize(TokenRoute):
    """Ids to text."""

    def post(self) -> Response:
        body = read_body(DetokenizeBody)
        with self.model(body.model) as model:
            text = model.detokenize(body.tokens)
        answer: native.Text = {"text": text}
        return json_response(answer)
