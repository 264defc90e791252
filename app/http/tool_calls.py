"""Tool calls in a completion: ``<tool_call>{"name": .., "arguments": {..}}</tool_call>``.

The form of Hermes and Qwen (its chat template tells the model to write so). HTTP threads; pure text.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class ToolCallFilter:
    """Parts a growing completion into text for the reader and calls.

    Text before the first call goes out as it comes, but for what may become the opening tag; from
    the first call on it waits for the end. What is no call after all is text.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._is_in_call = False

    def push(self, text: str) -> str:
        """The text that can go out now."""
        self._pending += text
        if self._is_in_call:
            return ""
        at = self._pending.find(OPEN)
        self._is_in_call = at >= 0
        return self._take(at if at >= 0 else len(self._pending) - _num_held(self._pending))

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """The rest of the text, and the calls."""
        text, calls = "", []
        rest = self._take(len(self._pending))
        while OPEN in rest:
            before, _, behind = rest.partition(OPEN)
            inside, _, rest = behind.partition(CLOSE)
            call = parse_call(inside)
            text += before if call else before + OPEN + behind[: len(behind) - len(rest)]
            calls += [call] if call else []
        text += rest
        return ("" if calls and not text.strip() else text), calls

    def _take(self, end: int) -> str:
        text, self._pending = self._pending[:end], self._pending[end:]
        return text


def split_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """The text and the calls of a whole completion."""
    parts = ToolCallFilter()
    before = parts.push(text)
    rest, calls = parts.finish()
    return (before.rstrip() if calls else before) + rest, calls


def parse_call(inside: str) -> dict[str, Any] | None:
    """OpenAI's tool call for the JSON between the tags; None where it is none."""
    try:
        call = json.loads(inside)
        name, arguments = call["name"], call.get("arguments", {})
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _num_held(text: str) -> int:
    """Length of the longest end of ``text`` that begins the opening tag."""
    return next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
