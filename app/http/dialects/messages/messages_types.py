"""What the routes of Anthropic's API answer; see ``native_types``. Types only."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class SaidText(TypedDict):
    """Text of the answer."""

    type: Literal["text"]
    text: str


class Thought(TypedDict):
    """Reasoning. Nothing is signed: `signature` is always `unsigned`."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUse(TypedDict):
    """One tool call; of one that was cut the input as far as it came."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


AnswerBlock = SaidText | Thought | ToolUse


class ThinkingTokens(TypedDict):
    """Tokens of the reasoning."""

    thinking_tokens: int


class MessagesUsage(TypedDict):
    """Token counts; `input_tokens` are those that were not read from the cache."""

    input_tokens: int
    output_tokens: int
    output_tokens_details: NotRequired[ThinkingTokens]
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class AnsweredMessage(TypedDict):
    """An answered conversation; at the start of a stream it has no content yet and no reason."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessagesUsage


class InputTokens(TypedDict):
    """How many tokens the model would read."""

    input_tokens: int
