"""``/infill``. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response

from app.http.body import read_body
from app.http.completion import Piece
from app.http.errors import json_response
from app.http.generation import Generation
from app.http.infilling import Infilling, open_infilling
from app.http.request_log import record
from app.http.resources.generating import GeneratingRoute
from app.http.schemas.infill import InfillBody


class Infill(GeneratingRoute):
    """Fills holes; a single one may be streamed."""

    def post(self) -> Response:
        body = read_body(InfillBody)
        served = self.served(body)
        record().prompt = body.texts
        infilling = open_infilling(body, served, self.service.context)
        if body.stream:
            return self._stream(infilling, InfillShape(infilling))
        with infilling:
            infilling.fill_all()
            answer = {"infills": infilling.infills, "text": infilling.whole, **infilling.details()}
            return json_response(answer, headers=infilling.headers())


class InfillShape:
    """The events of a stream: what fills the hole, piece by piece."""

    prefix = ""

    def __init__(self, infilling: Infilling):
        self._infilling = infilling

    def whole(self, generation: Generation) -> object:
        return {"infills": self._infilling.infills, "text": self._infilling.whole, **self._infilling.details()}

    def first(self, generation: Generation) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: Generation) -> Iterable[object]:
        return [{"infill": piece.text}] if piece.text else []

    def last(self, generation: Generation) -> Iterable[object]:
        return [{"infill": "", **self._infilling.details()}]
