"""What ``/translate`` and ``/summarize`` answer, whole and streamed; the types are also in the OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typing_extensions import TypedDict

from app.core.work.job_events import FinishReason
from app.http.answers.native_shapes import timings_of
from app.http.answers.native_types import Recording, Timings, Usage
from app.http.requests.job_output import Piece
from app.http.requests.running import RunningRequest
from app.http.schemas.seq2seq_bodies import ConversionBody


class ConversionDetails(Recording):
    """What is told beside the texts; for a list of texts, a list of reasons."""

    finish_reason: FinishReason | list[FinishReason]
    usage: Usage
    timings: Timings
    model: str
    request_id: str


class Translation(ConversionDetails):
    """A translated text; a list for a list."""

    translation: str | list[str]


class Summary(ConversionDetails):
    """A summarized text; a list for a list."""

    summary: str | list[str]


class HubTranslation(TypedDict):
    """As Hugging Face's inference API answers."""

    translation_text: str


class HubSummary(TypedDict):
    """As Hugging Face's inference API answers."""

    summary_text: str


class ConversionShape:
    """Texts under ``key``; pieces of several are told apart by ``index``."""

    prefix = ""

    def __init__(self, key: str, body: ConversionBody):
        self._key = key
        self._body = body

    def whole(self, generation: RunningRequest) -> dict[str, Any]:
        texts = [one.text for one in generation.outputs]
        return {self._key: self._shown(texts), **self._details(generation)}

    def first(self, generation: RunningRequest) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        if not piece.text:
            return []
        index = {} if isinstance(self._body.text, str) else {"index": piece.index}
        return [{**index, self._key: piece.text}]

    def last(self, generation: RunningRequest) -> Iterable[object]:
        return [{self._key: self._shown([""] * len(generation.outputs)), **self._details(generation)}]

    def _shown(self, values: list[Any]) -> Any:
        return values[0] if isinstance(self._body.text, str) else values

    def _details(self, generation: RunningRequest) -> dict[str, Any]:
        recorded = {} if self._body.recordid is None else {"recordid": self._body.recordid}
        return {
            "finish_reason": self._shown([one.reason for one in generation.outputs]),
            "usage": generation.usage(),
            "timings": timings_of(generation),
            "model": generation.model,
            "request_id": generation.request_id,
            **recorded,
        }


class HubShape(ConversionShape):
    """A list of objects, also for one text."""

    def whole(self, generation: RunningRequest) -> Any:
        return [{self._key: one.text} for one in generation.outputs]
