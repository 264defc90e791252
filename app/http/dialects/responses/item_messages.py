"""Items as OpenAI's Responses API has them, as messages for chat's body. HTTP threads; pure functions.

What the model said, thought and called in one turn are items of their own there, and one message here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.http.dialects.responses.input_items import (
    CallersMessage,
    CallersParts,
    FunctionCallItem,
    FunctionOutputItem,
    InputItem,
    ModelsMessage,
    ModelsPart,
    ReasoningInputItem,
    Refusal,
)

# Between the texts of messages that are one.
GAP = "\n\n"

ChatMessage = dict[str, Any]


def chat_messages(instructions: str | None, given: str | Sequence[InputItem]) -> list[ChatMessage]:
    """The conversation, its instructions first."""
    messages = [] if instructions is None else [{"role": "system", "content": instructions}]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    turn = ModelsTurn()
    for item in given:
        match item:
            case CallersMessage():
                messages += turn.end()
                messages.append({"role": item.role, "content": _callers(item.content)})
            case FunctionOutputItem():
                messages += turn.end()
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _callers(item.output)})
            case ReasoningInputItem():
                messages += turn.end() if turn.has_spoken else []
                turn.thoughts.append(_thought(item))
            case ModelsMessage():
                turn.texts.append(_models(item.content))
            case FunctionCallItem():
                turn.calls.append(_call(item))
    return messages + turn.end()


class ModelsTurn:
    """What the model thought, said and called, until somebody else speaks or it thinks again."""

    def __init__(self) -> None:
        self.thoughts: list[str] = []
        self.texts: list[str] = []
        self.calls: list[dict[str, Any]] = []

    @property
    def has_spoken(self) -> bool:
        return bool(self.texts or self.calls)

    def end(self) -> list[ChatMessage]:
        """The message, if there is any; the next turn begins."""
        if not (self.thoughts or self.has_spoken):
            return []
        message = {
            "role": "assistant",
            "content": GAP.join(filter(None, self.texts)) or (None if self.calls else ""),
            "reasoning_content": GAP.join(filter(None, self.thoughts)) or None,
            "tool_calls": self.calls or None,
        }
        self.thoughts, self.texts, self.calls = [], [], []
        return [message]


def _callers(content: str | CallersParts) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _models(content: str | Sequence[ModelsPart]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in content)


def _thought(item: ReasoningInputItem) -> str:
    parts = item.content or item.summary or []
    return GAP.join(part.text for part in parts)


def _call(item: FunctionCallItem) -> dict[str, Any]:
    return {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
