"""What the answers of ``/v1/chat/completions`` look like. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.work.job_events import FinishReason
from app.http.answers.chat_parts import PartStream, message_of
from app.http.answers.completions_shape import OpenAIShape
from app.http.answers.logprobs import chat_entry
from app.http.answers.native_shapes import Tracks
from app.http.answers.openai_types import (
    ChatCompletion,
    EndReason,
    MessageChoice,
    MessageLogprobs,
    ScoredMessageToken,
)
from app.http.requests.job_output import JobOutput, Piece
from app.http.requests.running import RunningRequest
from app.http.schemas.chat_body import ChatCompletionsBody


class ChatCompletionsShape(OpenAIShape):
    """``chat.completion`` and its chunks."""

    id_prefix = "chatcmpl"
    chunk_object = "chat.completion.chunk"

    def __init__(self, body: ChatCompletionsBody):
        super().__init__(body)
        self._body = body
        self._form = AnswerForm()
        self._streams: dict[int, PartStream] = {}

    def read_as(self, form: AnswerForm) -> None:
        """How the answers are written: known once the prompt is."""
        self._form = form

    def whole(self, generation: RunningRequest) -> ChatCompletion:
        choices = [self._choice(index, one, generation) for index, one in enumerate(generation.outputs)]
        usage = generation.usage()
        return {**self._envelope(generation), "object": "chat.completion", "choices": choices, "usage": usage}

    def first(self, generation: RunningRequest) -> Iterable[object]:
        for index in range(self._body.num_choices):
            delta = {"role": "assistant", "content": "", "refusal": None}
            yield self._delta(generation, index, delta)

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        is_last = piece.finish_reason is not None
        stream = self._streams.setdefault(piece.index, PartStream(self._form))
        deltas = stream.push(piece.text, is_last=is_last)
        logprobs = self._logprobs(piece, generation)
        if logprobs and not (deltas and "content" in deltas[0]):
            deltas.insert(0, {"content": ""})
        for delta in deltas:
            yield self._delta(generation, piece.index, delta, logprobs)
            logprobs = None
        if piece.finish_reason is not None:
            reason = finish_reason(piece.finish_reason, has_calls=stream.num_calls > 0)
            yield self._delta(generation, piece.index, {}, reason=reason)

    def _choice(self, index: int, one: JobOutput, generation: RunningRequest) -> MessageChoice:
        message = message_of(one.text, self._form)
        reason = finish_reason(one.reason, has_calls="tool_calls" in message)
        logprobs = self._logprobs(one.as_piece(index), generation)
        if self._body.logprobs:
            logprobs = logprobs or {"content": [], "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, piece: Piece, generation: RunningRequest) -> MessageLogprobs | None:
        if not self._body.logprobs:
            return None
        entries = scored_tokens(self._tracks, piece, generation)
        return {"content": entries, "refusal": None} if entries else None

    def _delta(
        self,
        generation: RunningRequest,
        index: int,
        delta: object,
        logprobs: MessageLogprobs | None = None,
        reason: EndReason | None = None,
    ) -> dict[str, object]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._chunk(generation, choice)


def scored_tokens(tracks: Tracks, piece: Piece, generation: RunningRequest) -> list[ScoredMessageToken]:
    """The tokens of the content that came; special ones, such as the end, are no part of it."""
    vocabulary = generation.vocabulary
    scored = [one.scored for one in tracks.push(piece, generation) if one.scored is not None]
    return [chat_entry(vocabulary, one) for one in scored if not vocabulary.is_special(one.token)]


def finish_reason(reason: FinishReason, *, has_calls: bool) -> EndReason:
    """``tool_calls`` where a completion that came to its end calls something."""
    return "tool_calls" if has_calls and reason == "stop" else reason
