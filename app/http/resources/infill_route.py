"""``/infill``. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from flask import Response

from app.http.answers.llama_cpp_details import llama_cpp_details, llama_cpp_timings, selected
from app.http.answers.native_shapes import recording, timings_of
from app.http.answers.native_types import (
    InfillAnswer,
    InfillDetails,
    InfillTimings,
    LlamaCppDetails,
    LlamaCppText,
    SelectedFields,
)
from app.http.reading.body import read_body
from app.http.requested.texts import ask_infill
from app.http.requests.infilling import Infilling
from app.http.requests.job_output import Piece
from app.http.requests.running import RunningRequest
from app.http.resources.text_route import TextRoute
from app.http.schemas.infill_body import InfillBody


class Infill(TextRoute):
    """Fills holes; a single one may be streamed."""

    def post(self) -> Response:
        body = read_body(InfillBody)
        return self.send(ask_infill(self.service, body, InfillShape(body)))


class InfillShape:
    """What fills the holes, and the text around them; streamed, what fills the one hole, piece by piece."""

    prefix = ""

    def __init__(self, body: InfillBody):
        self._body = body

    def whole(self, generation: RunningRequest) -> InfillAnswer | SelectedFields:
        infilling = cast(Infilling, generation)
        answer: InfillAnswer = {
            **self._content(infilling.text),
            "infills": infilling.infills,
            "text": infilling.whole,
            **self._details(infilling),
        }
        return selected(answer, self._body.response_fields)

    def first(self, generation: RunningRequest) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        if not piece.text:
            return []
        own = {"stop": False} if self._body.is_llama_cpp else {}
        return [{**self._content(piece.text), "infill": piece.text, **own}]

    def last(self, generation: RunningRequest) -> Iterable[object]:
        return [{**self._content(""), "infill": "", **self._details(cast(Infilling, generation))}]

    def _content(self, text: str) -> LlamaCppText:
        """The text under llama.cpp's name, for those who speak as its plugins do."""
        return {"content": text} if self._body.is_llama_cpp else {}

    def _details(self, infilling: Infilling) -> InfillDetails:
        """Why each hole ended; ``length`` for the request where any hole was cut."""
        reasons = infilling.finish_reasons
        is_llama_cpp = self._body.is_llama_cpp
        extra = llama_cpp_details(infilling, infilling.context_tokens) if is_llama_cpp else LlamaCppDetails()
        timings = llama_cpp_timings(infilling) if is_llama_cpp else cast(InfillTimings, timings_of(infilling))
        return {
            "finish_reason": "length" if "length" in reasons else "stop",
            "finish_reasons": reasons,
            "usage": infilling.usage(),
            "timings": timings,
            "model": infilling.model,
            "request_id": infilling.request_id,
            **recording(self._body),
            **extra,
        }
