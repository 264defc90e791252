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
from app.http.llama_cpp_answers import llama_cpp_details, selected
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
        infilling = self._infilling
        answer = {"infills": infilling.infills, "text": infilling.whole, **self._details()}
        return selected({**self._content(infilling.text), **answer}, self._body.response_fields)

    def first(self, generation: Generation) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: Generation) -> Iterable[object]:
        if not piece.text:
            return []
        own = {"stop": False} if self._body.is_llama_cpp else {}
        return [{**self._content(piece.text), "infill": piece.text, **own}]

    def last(self, generation: Generation) -> Iterable[object]:
        return [{**self._content(""), "infill": "", **self._details()}]

    def _content(self, text: str) -> dict[str, str]:
        """The text under llama.cpp's name, for those who speak as its plugins do."""
        return {"content": text} if self._body.is_llama_cpp else {}

    def _details(self) -> dict[str, Any]:
        """Why each hole ended; ``length`` for the request where any hole was cut."""
        reasons = self._infilling.finish_reasons
        whole = "length" if "length" in reasons else "stop"
        shown = {**details(self._infilling, self._body), "finish_reason": whole, "finish_reasons": reasons}
        if not self._body.is_llama_cpp:
            return shown
        return {**shown, **llama_cpp_details(self._infilling, self._infilling.context_tokens)}
