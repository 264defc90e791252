"""The parts of an answer in OpenAI's form: the message of a whole one, the deltas of a stream. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from app.core.parsing.tool_calls.answer_parts import Arguments, CallStart, Content, Part, Reasoning
from app.core.parsing.tool_calls.answer_reader import AnswerForm, AnswerReader, read_whole
from app.http.answers.openai_types import Call, Message


def merged(parts: Iterable[Part]) -> list[Part]:
    """``parts`` with those of one kind together that follow each other."""
    found: list[Part] = []
    for kind, some in groupby(parts, type):
        if kind is CallStart:
            found += some
        else:
            found.append(kind("".join(part.text for part in some if not isinstance(part, CallStart))))
    return found


def message_of(text: str, form: AnswerForm) -> Message:
    """The whole message; ``content`` is null beside calls alone."""
    content, reasoning = "", ""
    calls: list[Call] = []
    for part in [Content(text)] if form.is_plain else merged(read_whole(text, form)):
        match part:
            case Content():
                content += part.text
            case Reasoning():
                reasoning += part.text
            case CallStart():
                calls.append(_call(part, form))
            case Arguments():
                calls[-1]["function"]["arguments"] += part.text
    message: Message = {"role": "assistant", "content": (content or None) if calls else content, "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: CallStart, form: AnswerForm) -> Call:
    return {"id": form.id_of(call), "type": "function", "function": {"name": call.name, "arguments": ""}}


class PartStream:
    """The deltas of one completion. A call's first delta brings its name, the following ones pieces of arguments."""

    def __init__(self, form: AnswerForm):
        self._form = form
        self._reader = AnswerReader(form)
        self.num_calls = 0

    def push(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """What is certain now; with ``is_last`` the rest."""
        if self._form.is_plain:
            return [{"content": text}] if text else []
        parts = self._reader.push(text)
        return [self._delta(part) for part in merged(parts + (self._reader.finish() if is_last else []))]

    def _delta(self, part: Part) -> dict[str, Any]:
        match part:
            case Content():
                return {"content": part.text}
            case Reasoning():
                return {"reasoning_content": part.text}
            case CallStart():
                self.num_calls += 1
                return {"tool_calls": [{"index": self.num_calls - 1, **_call(part, self._form)}]}
            case Arguments():
                return {"tool_calls": [{"index": self.num_calls - 1, "function": {"arguments": part.text}}]}
