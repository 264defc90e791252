"""What the answers of ``/v1/responses`` look like, whole and as OpenAI's events. HTTP threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from app.core.errors import RequestError
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.http.answers.chat_shape import scored_tokens
from app.http.answers.native_shapes import Tracks
from app.http.answers.openai_types import ScoredMessageToken
from app.http.dialects.answer_blocks import BlockReader, BlockStep
from app.http.dialects.field_names import renamed
from app.http.dialects.named_events import NamedEvent
from app.http.dialects.responses.output_items import OutputItems
from app.http.dialects.responses.response_settings import settings_of
from app.http.dialects.responses.response_types import (
    AnsweredResponse,
    ResponseFailure,
    ResponseStatus,
    ResponseUsage,
)
from app.http.dialects.responses.responses_body import NAMES, ResponsesBody
from app.http.requests.job_output import Piece
from app.http.requests.running import RunningRequest
from app.http.schemas.chat_body import ChatCompletionsBody


class ResponsesShape:
    """``response`` and its events."""

    prefix = ""
    ping = b": ping\n\n"

    def __init__(self, body: ResponsesBody, chat: ChatCompletionsBody):
        self._settings = settings_of(body)
        self._has_logprobs = body.has_logprobs
        self._tracks = Tracks(chat)
        self._created_s = int(time.time())
        self._reader = BlockReader(AnswerForm())
        self._generation: RunningRequest | None = None
        self._num_events = 0
        self._items = OutputItems("")

    def read_as(self, form: AnswerForm) -> None:
        self._reader = BlockReader(form)

    def whole(self, generation: RunningRequest) -> AnsweredResponse:
        self._items = OutputItems(generation.request_id)
        [output] = generation.outputs
        # As a stream of one piece: its events say which tokens belong to which text.
        list(self._events(output.as_piece(0), generation))
        return self._ended(generation)

    def first(self, generation: RunningRequest) -> Iterable[NamedEvent]:
        self._generation = generation
        self._items = OutputItems(generation.request_id)
        started = self._response(generation, "in_progress")
        return self._numbered(
            [{"type": f"response.{name}", "response": started} for name in ("created", "in_progress")]
        )

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[NamedEvent]:
        return self._numbered(self._events(piece, generation))

    def last(self, generation: RunningRequest) -> Iterable[NamedEvent]:
        response = self._ended(generation)
        return self._numbered([{"type": f"response.{response['status']}", "response": response}])

    def failed(self, error: RequestError, request_id: str) -> Iterable[NamedEvent]:
        """A response that has begun fails; before that there is an error alone."""
        message, param = renamed(error, NAMES)
        if self._generation is None:
            return self._numbered([{"type": "error", "code": error.code, "message": message, "param": param}])
        failure: ResponseFailure = {"code": failure_code(error), "message": message}
        response = {**self._response(self._generation, "failed"), "error": failure}
        return self._numbered([{"type": "response.failed", "response": response}])

    def _events(self, piece: Piece, generation: RunningRequest) -> Iterator[NamedEvent]:
        is_cut = piece.finish_reason == "length"
        steps = self._read(piece, generation)
        last = self._reader.blocks[-1] if self._reader.blocks else None
        for step in steps:
            yield from self._items.events(step, is_cut=is_cut and step.block is last)

    def _read(self, piece: Piece, generation: RunningRequest) -> list[BlockStep]:
        """What the piece does to the items; an answer that ends with none is an empty message."""
        is_last = piece.finish_reason is not None
        if self._has_logprobs:
            self._items.score(self._scored(piece, generation))
        steps = self._reader.push(piece.text, is_last=is_last)
        if is_last and not self._reader.blocks:
            steps = self._reader.blank()
        return steps

    def _scored(self, piece: Piece, generation: RunningRequest) -> list[ScoredMessageToken]:
        return scored_tokens(self._tracks, piece, generation)

    def _numbered(self, events: Iterable[NamedEvent]) -> Iterator[NamedEvent]:
        for event in events:
            yield {**event, "sequence_number": self._num_events}
            self._num_events += 1

    def _ended(self, generation: RunningRequest) -> AnsweredResponse:
        is_cut = generation.outputs[0].reason == "length"
        response = self._response(generation, "incomplete" if is_cut else "completed")
        if is_cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        blocks = self._reader.blocks
        response["output"] = [self._items.told(block, is_cut=is_cut and block is blocks[-1]) for block in blocks]
        response["usage"] = _usage(generation)
        return response

    def _response(self, generation: RunningRequest, status: ResponseStatus) -> AnsweredResponse:
        return {
            "id": f"resp_{generation.request_id}",
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": generation.model,
            "output": [],
            "usage": None,
            **self._settings,
        }


def _usage(generation: RunningRequest) -> ResponseUsage:
    counts = generation.token_counts()
    return {
        "input_tokens": counts.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counts.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning_tokens or 0},
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
    }


def failure_code(error: RequestError) -> str:
    """OpenAI's codes for responses that fail tell little more than whose fault it was."""
    return "invalid_prompt" if error.status < 500 else "server_error"
