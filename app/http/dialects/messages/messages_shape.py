"""What the answers of ``/v1/messages`` look like, whole and as Anthropic's events. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.errors import RequestError
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.http.dialects.answer_blocks import Block, BlockReader, BlockStep
from app.http.dialects.call_arguments import as_object
from app.http.dialects.field_names import FieldNames
from app.http.dialects.messages.messages_error import messages_error
from app.http.dialects.messages.messages_types import (
    AnswerBlock,
    AnsweredMessage,
    MessagesUsage,
    StopReason,
)
from app.http.dialects.named_events import NamedEvent, named_events
from app.http.requests.job_output import JobOutput, Piece
from app.http.requests.running import RunningRequest

UNSIGNED = "unsigned"


class MessagesShape:
    """``message`` and its events."""

    prefix = ""
    ping = named_events([{"type": "ping"}])

    def __init__(self, names: FieldNames):
        self._names = names
        self._reader = BlockReader(AnswerForm())

    def read_as(self, form: AnswerForm) -> None:
        self._reader = BlockReader(form)

    def whole(self, generation: RunningRequest) -> AnsweredMessage:
        [output] = generation.outputs
        self._reader.push(output.text, is_last=True)
        return {
            **_started(generation),
            "content": [_told(block) for block in self._reader.blocks],
            "stop_reason": self._reason(output),
            "stop_sequence": output.stop,
        }

    def first(self, generation: RunningRequest) -> Iterable[NamedEvent]:
        return [{"type": "message_start", "message": _started(generation)}]

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[NamedEvent]:
        steps = self._reader.push(piece.text, is_last=piece.finish_reason is not None)
        return [event for step in steps for event in _events(step)]

    def last(self, generation: RunningRequest) -> Iterable[NamedEvent]:
        [output] = generation.outputs
        delta = {"stop_reason": self._reason(output), "stop_sequence": output.stop}
        yield {"type": "message_delta", "delta": delta, "usage": _usage(generation)}
        yield {"type": "message_stop"}

    def failed(self, error: RequestError, request_id: str) -> Iterable[NamedEvent]:
        return [{**messages_error(error, request_id, error.status, self._names)}]

    def _reason(self, output: JobOutput) -> StopReason:
        if output.reason == "length":
            return "max_tokens"
        if output.stop is not None:
            return "stop_sequence"
        return "tool_use" if self._reader.has_calls else "end_turn"


def _started(generation: RunningRequest) -> AnsweredMessage:
    """The message before anything of it is known."""
    return {
        "id": f"msg_{generation.request_id}",
        "type": "message",
        "role": "assistant",
        "model": generation.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(generation),
    }


def _usage(generation: RunningRequest) -> MessagesUsage:
    counts = generation.token_counts()
    usage: MessagesUsage = {
        "input_tokens": counts.prompt_tokens - counts.cached_tokens,
        "output_tokens": counts.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached_tokens,
    }
    if counts.reasoning_tokens is not None:
        usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning_tokens}
    return usage


def _told(block: Block, *, is_empty: bool = False) -> AnswerBlock:
    """The block as far as it is there; ``is_empty``: as it begins."""
    text = "" if is_empty else block.text
    match block.kind:
        case "text":
            return {"type": "text", "text": text}
        case "reasoning":
            return {"type": "thinking", "thinking": text, "signature": "" if is_empty else UNSIGNED}
        case "call":
            return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": as_object(text)}


def _events(step: BlockStep) -> Iterable[NamedEvent]:
    index = step.block.index
    match step.does:
        case "begin":
            block = _told(step.block, is_empty=True)
            yield {"type": "content_block_start", "index": index, "content_block": block}
        case "grow":
            yield {"type": "content_block_delta", "index": index, "delta": _delta(step)}
        case "end":
            if step.block.kind == "reasoning":
                signed = {"type": "signature_delta", "signature": UNSIGNED}
                yield {"type": "content_block_delta", "index": index, "delta": signed}
            yield {"type": "content_block_stop", "index": index}


def _delta(step: BlockStep) -> NamedEvent:
    match step.block.kind:
        case "text":
            return {"type": "text_delta", "text": step.text}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": step.text}
        case "call":
            return {"type": "input_json_delta", "partial_json": step.text}
