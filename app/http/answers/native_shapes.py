"""What the answers of the native routes look like, whole and streamed.

HTTP threads. A ``Shape`` turns a generation into JSON values; ``sse`` and the resources send them.
A request for one completion is answered flat; with ``n`` above 1 the first choice stands there too,
and all of them in ``choices``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from app.core.errors import UnsupportedParameterError
from app.core.work.jobs import Job
from app.http.answers.logprobs import PlacedToken, TokenTrack, native_entry
from app.http.answers.native_types import (
    ChatAnswer,
    ChatAnswers,
    ChatChoice,
    Completion,
    CompletionChoice,
    Completions,
    Details,
    PromptAnswer,
    Recording,
    ScoredToken,
    Scores,
    Timings,
)
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
            job = generation.outputs[piece.index].job
            track = self._tracks[piece.index] = TokenTrack(
                generation.vocabulary,
                can_cut=self._can_cut,
                start=start,
                prompt_ids=job.prompt_ids,
                shown=job.params.shown_tokens if isinstance(job, Job) else frozenset(),
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

    def _scored(self, index: int, one: JobOutput, generation: RunningRequest) -> Scores:
        """The log-probabilities of one choice, where they were asked for."""
        if self._options.num_logprobs is None:
            return {}
        return {"logprobs": self._scores(one.as_piece(index), generation)}

    def _scores(self, piece: Piece, generation: RunningRequest) -> list[ScoredToken]:
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

    def whole(self, generation: RunningRequest) -> Completion | str:
        text, choices = self.prefix + generation.text, self._choices(generation)
        return {"completion": text, **choices, **details(generation, self._options)}

    def _choices(self, generation: RunningRequest) -> Completions:
        choices = [self._choice(index, one, generation) for index, one in enumerate(generation.outputs)]
        found: Completions = {"logprobs": choices[0]["logprobs"]} if "logprobs" in choices[0] else {}
        if len(choices) > 1:
            found["choices"] = choices
        return found

    def _choice(self, index: int, one: JobOutput, generation: RunningRequest) -> CompletionChoice:
        text, scores = self.prefix + one.text, self._scored(index, one, generation)
        return {"index": index, "completion": text, "finish_reason": one.reason, **scores}

    def last(self, generation: RunningRequest) -> Iterable[object]:
        return [{"completion": "", **details(generation, self._options)}]


class TextShape(CompletionShape):
    """``/`` with ``data``: a bare JSON string; streamed like ``/complete``."""

    def __init__(self, body: CompleteBody):
        super().__init__(body)
        refuse_what_has_no_place(body)

    def whole(self, generation: RunningRequest) -> str:
        return self.prefix + generation.text


class ChatShape(NativeShape):
    """``/chat``."""

    key = "response"

    def __init__(self, body: ChatBody):
        super().__init__(body)
        self._body = body

    def whole(self, generation: RunningRequest) -> PromptAnswer:
        return self._answer(generation, generation.text, self._choices(generation))

    def _choices(self, generation: RunningRequest) -> ChatAnswers:
        choices = [self._choice(index, one, generation) for index, one in enumerate(generation.outputs)]
        found: ChatAnswers = {"logprobs": choices[0]["logprobs"]} if "logprobs" in choices[0] else {}
        if len(choices) > 1:
            found["choices"] = choices
        return found

    def last(self, generation: RunningRequest) -> Iterable[object]:
        return [self._answer(generation, "", {})]

    def _answer(self, generation: RunningRequest, response: str, choices: ChatAnswers) -> ChatAnswer:
        history = self._body.rounds(generation.text)
        return {**prompt_form_body(response, 200), "history": history, **choices, **details(generation, self._body)}

    def _choice(self, index: int, one: JobOutput, generation: RunningRequest) -> ChatChoice:
        scores = self._scored(index, one, generation)
        return {"index": index, "response": one.text, "finish_reason": one.reason, **scores}


class PromptShape(ChatShape):
    """``/`` with ``prompt``: three fields and nothing else; streamed like ``/chat``."""

    def __init__(self, body: ChatBody):
        super().__init__(body)
        refuse_what_has_no_place(body)

    def whole(self, generation: RunningRequest) -> PromptAnswer:
        return prompt_form_body(generation.text, 200)


def refuse_what_has_no_place(body: GenerationOptions) -> None:
    """The answers of ``/`` have no room for more than one text."""
    if body.num_choices > 1:
        raise UnsupportedParameterError("n: this route answers one completion; use /complete or /chat", param="n")
    if body.num_logprobs is not None:
        text = "logprobs: this route answers text only; use /complete or /chat"
        raise UnsupportedParameterError(text, param="logprobs")


def details(generation: RunningRequest, body: GenerationOptions) -> Details:
    """What every native answer tells beside the text."""
    assert generation.has_ended_well, "only a generation that ended well is described"
    return {
        "finish_reason": generation.outputs[0].reason,
        "usage": generation.usage(),
        "timings": timings_of(generation),
        "model": generation.model,
        "request_id": generation.request_id,
        **recording(body),
    }


def recording(body: GenerationOptions) -> Recording:
    """The caller's own id, where there is one."""
    return {} if body.recordid is None else {"recordid": body.recordid}


def timings_of(generation: RunningRequest) -> Timings:
    """The request's points in time."""
    points = generation.timings().as_ms()
    return {"queue_ms": points["queue_ms"], "ttft_ms": points["ttft_ms"], "total_ms": points["total_ms"]}
