"""Turns as Anthropic's API has them, as messages for chat's body. HTTP threads; pure functions.

An answer of a tool is a block of the user's turn there and a message of its own here; turns of one role that follow
each other are one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from app.http.dialects.messages.content_blocks import (
    AssistantTurn,
    SystemTurn,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
    UserTurn,
)

# Between the texts of turns that are one.
GAP = "\n\n"

ChatMessage = dict[str, Any]


def chat_messages(system: str | list[TextBlock] | None, turns: Sequence[Turn]) -> list[ChatMessage]:
    """The conversation, its system message first."""
    messages = [] if system is None else [_system(system)]
    for role, group in groupby(turns, lambda turn: turn.role):
        match role:
            case "user":
                messages += _user_messages(turn for turn in group if isinstance(turn, UserTurn))
            case "assistant":
                messages.append(_assistant_message([turn for turn in group if isinstance(turn, AssistantTurn)]))
            case "system":
                messages += [_system(turn.content) for turn in group if isinstance(turn, SystemTurn)]
    return messages


def _system(content: str | list[TextBlock]) -> ChatMessage:
    return {"role": "system", "content": content if isinstance(content, str) else _joined(content)}


def _user_messages(turns: Iterable[UserTurn]) -> Iterator[ChatMessage]:
    texts: list[str] = []
    for turn in turns:
        for text, result in _parts(turn):
            if result is None:
                texts.append(text)
                continue
            yield from _said(texts)
            texts = []
            content = result.content if isinstance(result.content, str) else _joined(result.content or [])
            yield {"role": "tool", "tool_call_id": result.tool_use_id, "content": content}
    yield from _said(texts)


def _parts(turn: UserTurn) -> Iterator[tuple[str, ToolResultBlock | None]]:
    """The texts between answers of tools, and those answers."""
    if isinstance(turn.content, str):
        yield turn.content, None
        return
    for is_text, group in groupby(turn.content, lambda block: isinstance(block, TextBlock)):
        blocks = list(group)
        if is_text:
            yield _joined(blocks), None
        else:
            yield from (("", block) for block in blocks if isinstance(block, ToolResultBlock))


def _said(texts: list[str]) -> list[ChatMessage]:
    return [{"role": "user", "content": GAP.join(texts)}] if texts else []


def _assistant_message(turns: list[AssistantTurn]) -> ChatMessage:
    blocks = [block for turn in turns if not isinstance(turn.content, str) for block in turn.content]
    calls = [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    texts = [turn.content if isinstance(turn.content, str) else _joined(turn.content) for turn in turns]
    text = GAP.join(filter(None, texts))
    message: ChatMessage = {"role": "assistant", "content": text if text or not calls else None}
    return {**message, "reasoning_content": GAP.join(thoughts) if thoughts else None, "tool_calls": calls or None}


def _call(block: ToolUseBlock) -> dict[str, Any]:
    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    return {"id": block.id, "type": "function", "function": function}


def _joined(blocks: Iterable[object]) -> str:
    return "".join(block.text for block in blocks if isinstance(block, TextBlock))
