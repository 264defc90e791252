"""What the answers of the native routes look like, whole and streamed.

HTTP threads. A ``Shape`` turns a generation into JSON values; ``sse`` and the resources send them.
A request for one completion is answered flat; with ``n`` above 1 the first choice stands there too,
and all of them in ``choices``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from app.core.errors import UnsupportedParameterError
from app.http.answers.logprobs import PlacedToken, TokenTrack, native_entry
from app.http.application.error_envelope import prompt_form_body
from app.http.requests.job_output import JobOutput, Piece
from app.http.requests.running import RunningRequest
from app.http.schemas.generation_options import GenerationOptions
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.sampling_fields import SamplingOptions


class Shape(Protocol):
    """The JSON of one route; made for one request."""

    prefix: str
    """Text that goes in front of each completion."""

    def whole(self, generation: RunningRequest) -> object:
        """The answer, once the generation has ended."""

    def first(self, generation: RunningRequest) -> Iterable[object]:
        """Events of a stream before anything that was generated."""

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        """Events for what came."""

    def last(self, generation: RunningRequest) -> Iterable[object]:
        """Events before ``[DONE]``."""


class Tracks:
    """Follows the tokens of each completion of one request."""

    def __init__(self, options: SamplingOptions):
        self._can_cut = bool(options.stop or options.patterns)
        self._tracks: dict[int, TokenTrack] = {}

    def push(self, piece: Piece, generation: RunningRequest, start: int = 0) -> list[PlacedToken]:
        """The tokens whose text is out with ``piece``; ``start`` is the length of the text in front of its first."""
        track = self._tracks.get(piece.index)
        if track is None:
            track = self._tracks[piece.index] = TokenTrack(
                generation.vocabulary,
                can_cut=self._can_cut,
                start=start,
                prompt_ids=generation.outputs[piece.index].job.prompt_ids,
            )
        return track.push(piece)


class NativeShape:
    """What ``/complete`` and ``/chat`` have in common; ``key`` names the text."""

    key: ClassVar[str]
    prefix = ""

    def __init__(self, body: GenerationOptions):
        self._options = body
        self._tracks = Tracks(body)

    def first(self, generation: RunningRequest) -> Iterable[object]:
        if not self.prefix:
            return []
        return [self._indexed(index, {self.key: self.prefix}) for index in range(self._options.num_choices)]

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        event: dict[str, Any] = {self.key: piece.text}
        scores = self._scores(piece, generation)
        if scores:
            event["logprobs"] = scores
        if self._options.num_choices > 1 and piece.finish_reason:
            event["finish_reason"] = piece.finish_reason
        return [self._indexed(piece.index, event)] if piece.text or len(event) > 1 else []

    def _choices(self, generation: RunningRequest) -> dict[str, Any]:
        """The fields that the whole answer has for several choices, or for log-probabilities."""
        choices = [self._choice(index, one, generation) for index, one in enumerate(generation.outputs)]
        scores = {} if self._options.num_logprobs is None else {"logprobs": choices[0]["logprobs"]}
        return {**scores, "choices": choices} if self._options.num_choices > 1 else scores

    def _choice(self, index: int, one: JobOutput, generation: RunningRequest) -> dict[str, Any]:
        choice = {"index": index, self.key: self.prefix + one.text, "finish_reason": one.finish_reason}
        if self._options.num_logprobs is None:
            return choice
        return {**choice, "logprobs": self._scores(one.as_piece(index), generation)}

    def _scores(self, piece: Piece, generation: RunningRequest) -> list[dict[str, Any]]:
        if self._options.num_logprobs is None:
            return []
        placed = self._tracks.push(piece, generation)
        return [native_entry(generation.vocabulary, one.scored) for one in placed if one.scored is not None]

    def _indexed(self, index: int, event: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, **event} if self._options.num_choices > 1 else event


class CompletionShape(NativeShape):
    """``/complete``."""

    key = "completion"

    def __init__(self, body: CompleteBody):
        super().__init__(body)
        self.prefix = body.text if body.echo else ""

    def whole(self, generation: RunningRequest) -> object:
        text = self.prefix + generation.text
        return {"completion": text, **self._choices(generation), **details(generation, self._options)}

    def last(self, generation: RunningRequest) -> Iterable[object]:
        return [{"completion": "", **details(generation, self._options)}]


class TextShape(CompletionShape):
    """``/`` with ``data``: a bare JSON string; streamed like ``/complete``."""

    def __init__(self, body: CompleteBody):
        super().__init__(body)
        refuse_what_has_no_place(body)

    def whole(self, generation: RunningRequest) -> object:
        return self.prefix + generation.text


class ChatShape(NativeShape):
    """``/chat``."""

    key = "response"

    def __init__(self, body: ChatBody):
        super().__init__(body)
        self._body = body

    def whole(self, generation: RunningRequest) -> object:
        head = self._head(generation, generation.text)
        return {**head, **self._choices(generation), **details(generation, self._body)}

    def last(self, generation: RunningRequest) -> Iterable[object]:
        return [{**self._head(generation, ""), **details(generation, self._body)}]

    def _head(self, generation: RunningRequest, response: str) -> dict[str, object]:
        history = self._body.rounds(generation.text)
        return {**prompt_form_body(response, 200), "history": history}


class PromptShape(ChatShape):
    """``/`` with ``prompt``: three fields and nothing else; streamed like ``/chat``."""

    def __init__(self, body: ChatBody):
        super().__init__(body)
        refuse_what_has_no_place(body)

    def whole(self, generation: RunningRequest) -> object:
        return prompt_form_body(generation.text, 200)


def refuse_what_has_no_place(body: GenerationOptions) -> None:
    """The answers of ``/`` have no room for more than one text."""
    if body.num_choices > 1:
        raise UnsupportedParameterError("n: this route answers one completion; use /complete or /chat", param="n")
    if body.num_logprobs is not None:
        text = "logprobs: this route answers text only; use /complete or /chat"
        raise UnsupportedParameterError(text, param="logprobs")


def details(generation: RunningRequest, body: GenerationOptions) -> dict[str, Any]:
    """What every native answer tells beside the text."""
    assert generation.has_ended_well, "only a generation that ended well is described"
    shown = {
        "finish_reason": generation.outputs[0].finish_reason,
        "usage": generation.usage(),
        "timings": generation.timings().as_ms(),
        "model": generation.model,
        "request_id": generation.request_id,
    }
    return shown if body.recordid is None else {**shown, "recordid": body.recordid}
