"""``/infill``. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Response

from app.http.answers import details
from app.http.body import read_body
from app.http.completion import Piece
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
        return self.send(infilling, body, InfillShape(body, infilling))


class InfillShape:
    """What fills the holes, and the text around them; streamed, what fills the one hole, piece by piece."""

    prefix = ""

    def __init__(self, body: InfillBody, infilling: Infilling):
        self._body = body
        self._infilling = infilling

    def whole(self, generation: Generation) -> object:
        return {"infills": self._infilling.infills, "text": self._infilling.whole, **self._details()}

    def first(self, generation: Generation) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: Generation) -> Iterable[object]:
        return [{"infill": piece.text}] if piece.text else []

    def last(self, generation: Generation) -> Iterable[object]:
        return [{"infill": "", **self._details()}]

    def _details(self) -> dict[str, Any]:
        """Why each hole ended; ``length`` for the request where any hole was cut."""
        reasons = self._infilling.finish_reasons
        whole = "length" if "length" in reasons else "stop"
        return {**details(self._infilling, self._body), "finish_reason": whole, "finish_reasons": reasons}
