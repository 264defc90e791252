"""Tool calls in a completion: ``<tool_call>{"name": .., "arguments": {..}}</tool_call>``.

The form of Hermes and Qwen (its chat template tells the model to write so). A model's text is a stranger's: a call
is told by its JSON, and what only looks like one stays text. HTTP threads; pure text.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from app.http.answers.json_end import MAX_DEPTH, NotJsonError, ObjectEnd
from app.http.answers.openai_types import Call, CalledName

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_SPACE = re.compile(r"\s*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Where the arguments stand: templates of other families say parameters.
_ARGUMENT_KEYS = ("arguments", "parameters")


class ToolCallFilter:
    """Parts a growing completion into text for the reader and calls.

    Text goes out as it comes, but for what may become a call and for white space that may stand
    beside one; that white space is no part of the text. A call needs no closing tag, and one pair
    of tags may hold several. What is no call after all is text, and is searched for others.
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._space = ""
        self._is_behind_call = False
        self._is_between_tags = False
        self._object: ObjectEnd | None = None
        self._calls: list[Call] = []

    def push(self, text: str) -> str:
        """The text that can go out now."""
        self._text += text
        return self._advance(is_last=False)

    def finish(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls."""
        text = self._advance(is_last=True)
        return (text if self._is_behind_call else text + self._space), self._calls

    def _advance(self, *, is_last: bool) -> str:
        out: list[str] = []
        while self._at < len(self._text):
            is_call_next = self._is_between_tags or self._text.startswith(OPEN, self._at)
            if not (self._read_call(out, is_last) if is_call_next else self._read_text(out, is_last)):
                break
        if self._object is None:
            self._text, self._at = self._text[self._at :], 0
        return "".join(out)

    def _read_text(self, out: list[str], is_last: bool) -> bool:
        """Let the text in front of the next opening tag go; False where there is none yet."""
        at = self._text.find(OPEN, self._at)
        held = 0 if is_last else _num_held(self._text, self._at)
        self._let_go(out, at if at >= 0 else len(self._text) - held)
        return at >= 0

    def _read_call(self, out: list[str], is_last: bool) -> bool:
        """Read what stands behind an opening tag, or behind a call; False where more must come first."""
        tag = "" if self._is_between_tags else OPEN
        start = _behind_space(self._text, self._at + len(tag))
        if self._is_between_tags and self._text.startswith(CLOSE, start):
            self._at, self._is_between_tags = start + len(CLOSE), False
            return True
        if not is_last and self._may_still_close(start):
            return False
        end = self._find_end(start)
        if end is None and not is_last:
            return False
        call = parse_call(self._text[start:end]) if end else None
        self._object = None
        if call is None or end is None:
            self._is_between_tags = False
            self._let_go(out, self._at + max(len(tag), 1))
        else:
            self._calls.append(call)
            self._at, self._space = end, ""
            self._is_behind_call = self._is_between_tags = True
        return True

    def _may_still_close(self, start: int) -> bool:
        """Whether nothing stands at ``start`` yet, or, between two tags, a part of the closing one."""
        num_left = len(self._text) - start
        is_part = self._is_between_tags and num_left < len(CLOSE) and CLOSE.startswith(self._text[start:])
        return num_left == 0 or is_part

    def _find_end(self, start: int) -> int | None:
        """Where the object that begins at ``start`` ends; None while that is not there, 0 where it is none."""
        if not self._text.startswith("{", start):
            return 0
        self._object = self._object or ObjectEnd(start)
        try:
            return self._object.find(self._text)
        except NotJsonError:
            return 0

    def _let_go(self, out: list[str], end: int) -> None:
        """What stands before ``end`` is text; white space at its end waits for what follows."""
        text, self._at = self._space + self._text[self._at : end], end
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self._is_behind_call = False
            out.append(shown)


def split_calls(text: str) -> tuple[str, list[Call]]:
    """The text and the calls of a whole completion."""
    parts = ToolCallFilter()
    before = parts.push(text)
    rest, calls = parts.finish()
    return before + rest, calls


def parse_call(inside: str) -> Call | None:
    """OpenAI's tool call for a JSON object; None where it is none."""
    try:
        call = _read(inside)
        call = call["function"] if isinstance(call.get("function"), dict) else call
        name, arguments = call["name"], _arguments(call)
    except (ValueError, RecursionError, KeyError):
        return None
    if not isinstance(name, str) or isinstance(name, _Number) or not name:
        return None
    function: CalledName = {"name": _LONE_SURROGATE.sub("\ufffd", name), "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _num_held(text: str, start: int) -> int:
    """Length of the longest end of ``text``, from ``start`` on, that begins the opening tag."""
    return next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n], start)), 0)


def _behind_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    assert found is not None, "no white space is a match too"
    return found.end()


class _Number(str):
    """A number as the model wrote it: a double holds only some of its digits."""


def _read(source: str) -> dict[str, Any]:
    """A JSON object, its numbers as they were written; NaN and infinities, which JSON has not, are null."""
    value = json.loads(source, strict=False, parse_float=_Number, parse_int=_Number, parse_constant=lambda _: None)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _arguments(call: dict[str, Any]) -> str:
    """The arguments of ``call`` as the text of a JSON object, also where the model wrote them as text."""
    given: Any = next((call[key] for key in _ARGUMENT_KEYS if call.get(key) is not None), {})
    if isinstance(given, str) and not isinstance(given, _Number):
        given = _read(given) if given.strip() else {}
    if not isinstance(given, dict):
        raise ValueError("the arguments are no object")
    return _write(given, MAX_DEPTH)


def _write(value: Any, depth: int) -> str:
    """JSON in which half a surrogate pair stays an escape, since no UTF-8 could hold it."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)}: {_write(one, depth - 1)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_write(one, depth - 1) for one in value) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
