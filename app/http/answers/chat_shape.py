"""What the answers of ``/v1/chat/completions`` look like. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.jobs import FinishReason
from app.http.answers.completions_shape import OpenAIShape
from app.http.answers.logprobs import chat_entry
from app.http.answers.openai_types import (
    Call,
    ChatCompletion,
    EndReason,
    Message,
    MessageChoice,
    MessageLogprobs,
)
from app.http.answers.tool_calls import ToolCallFilter, split_calls
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
        self._filters: dict[int, ToolCallFilter] = {}

    def whole(self, generation: RunningRequest) -> ChatCompletion:
        choices = [self._choice(index, one, generation) for index, one in enumerate(generation.outputs)]
        usage = generation.usage()
        return {**self._envelope(generation), "object": "chat.completion", "choices": choices, "usage": usage}

    def first(self, generation: RunningRequest) -> Iterable[object]:
        for index in range(self._body.num_choices):
            delta = {"role": "assistant", "content": "", "refusal": None}
            yield self._delta(generation, index, delta)

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        text, calls = self._part(piece)
        logprobs = self._logprobs(piece, generation)
        if text or logprobs:
            yield self._delta(generation, piece.index, {"content": text}, logprobs)
        for number, call in enumerate(calls):
            yield self._delta(generation, piece.index, {"tool_calls": [{"index": number, **call}]})
        if piece.finish_reason is not None:
            reason = finish_reason(piece.finish_reason, calls)
            yield self._delta(generation, piece.index, {}, reason=reason)

    def _choice(self, index: int, one: JobOutput, generation: RunningRequest) -> MessageChoice:
        text, calls = split_calls(one.text) if self._body.shown_tools else (one.text, [])
        message: Message = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message["content"], message["tool_calls"] = text or None, calls
        reason = finish_reason(one.reason, calls)
        logprobs = self._logprobs(one.as_piece(index), generation)
        if self._body.logprobs:
            logprobs = logprobs or {"content": [], "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def _part(self, piece: Piece) -> tuple[str, list[Call]]:
        """The text that can go out, and at the end the calls."""
        if not self._body.shown_tools:
            return piece.text, []
        parts = self._filters.setdefault(piece.index, ToolCallFilter())
        text = parts.push(piece.text)
        rest, calls = parts.finish() if piece.finish_reason is not None else ("", [])
        return text + rest, calls

    def _logprobs(self, piece: Piece, generation: RunningRequest) -> MessageLogprobs | None:
        """The tokens of the content; special ones, such as the end, are no part of it."""
        if not self._body.logprobs:
            return None
        vocabulary = generation.vocabulary
        scored = [one.scored for one in self._tracks.push(piece, generation) if one.scored is not None]
        entries = [chat_entry(vocabulary, one) for one in scored if not vocabulary.is_special(one.token)]
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


def finish_reason(reason: FinishReason, calls: list[Call]) -> EndReason:
    """``tool_calls`` where a completion that came to its end calls something."""
    return "tool_calls" if calls and reason == "stop" else reason
