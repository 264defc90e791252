"""Grammars for tool calls: a family's own notation around arguments that follow their schema. HTTP threads; pure.

Written in llguidance's Lark. What stands before a call is free where the request leaves the choice to the model, and
reasoning always is. A sign that is a special token is matched as that token: as text it would be another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import BadRequestError
from app.core.parsing.tool_calls.forms import deepseek
from app.models.json_schemas.emission import plain_schema

# As in ``grammar_process.JSON_FORM``; there the compiler takes it as an option, inside of Lark as a keyword.
JSON_FORM = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}
ANY = "(?s:.*)"


@dataclass(frozen=True, slots=True)
class CallNotation:
    """How calls are written: ``before`` holds NAME, arguments stand between it and ``after``.

    ``sign`` is what free text may not hold; ``may_follow_text``: calls may stand behind text.
    """

    sign: str
    before: str
    after: str
    begin: str = ""
    between: str = ""
    end: str = ""
    may_follow_text: bool = True


_OBJECT = '{"name": "NAME", "arguments": '
NOTATIONS = {
    "hermes": CallNotation("<tool_call>", f"<tool_call>\n{_OBJECT}", "}\n</tool_call>", between="\n"),
    "granite": CallNotation("<|tool_call|>", _OBJECT, "}", "<|tool_call|>[", ", ", "]"),
    "llama_json": CallNotation("{", '{"name": "NAME", "parameters": ', "}", between="; ", may_follow_text=False),
    "mistral_v3": CallNotation("[TOOL_CALLS]", _OBJECT, "}", "[TOOL_CALLS] [", ", ", "]"),
    "mistral_v11": CallNotation("[TOOL_CALLS]", "[TOOL_CALLS]NAME[ARGS]", ""),
    "deepseek_v3": CallNotation(
        deepseek.CALLS,
        f"{deepseek.CALL}function{deepseek.SEPARATOR}NAME\n```json\n",
        f"\n```{deepseek.CALL_END}",
        deepseek.CALLS,
        "\n",
        deepseek.CALLS_END,
    ),
    "deepseek_v31": CallNotation(
        deepseek.CALLS,
        f"{deepseek.CALL}NAME{deepseek.SEPARATOR}",
        deepseek.CALL_END,
        deepseek.CALLS,
        "",
        deepseek.CALLS_END,
    ),
}


@dataclass(frozen=True, slots=True)
class CallRules:
    """What one request asks for: ``schemas`` of the functions that may be called.

    ``is_required``: there is a call and no text before it. ``opens`` and ``closes`` are the reasoning's signs, which
    ``is_thinking`` says to be open already.
    """

    notation: str
    schemas: dict[str, dict[str, Any]]
    is_required: bool
    is_parallel: bool
    opens: list[str] = field(default_factory=list)
    closes: list[str] = field(default_factory=list)
    is_thinking: bool = False


def notation_of(form: str, template: str) -> str | None:
    """The notation of a form's calls that a template shows; None where no grammar is written for it."""
    if form == "mistral":
        return "mistral_v11" if "[ARGS]" in template else "mistral_v3"
    if form == "deepseek":
        return "deepseek_v3" if "```json" in template else "deepseek_v31"
    return form if form in NOTATIONS else None


def call_grammar(rules: CallRules, special: Mapping[str, int]) -> tuple[str, bool]:
    """The grammar, and whether its objects' names can be kept apart: not behind free text.

    ``special`` are the tokenizer's special tokens. Raises a ``BadRequestError`` where a schema cannot be followed.
    """
    notation = NOTATIONS[rules.notation]
    written = _Written(special)
    has_free_names = False
    for index, (name, schema) in enumerate(rules.schemas.items()):
        text, is_free = _arguments(name, schema)
        has_free_names = has_free_names or is_free
        written.rules.append(f"args_{index}: %json {text}")
    written.calls("calls", notation, rules)
    body = "calls" if rules.is_required else written.free(notation, rules)
    thinking = written.thinking(rules)
    is_free_text = bool(thinking) or not rules.is_required
    lines = ["%llguidance {}", f"start: {thinking}{body}", *written.rules]
    return "\n".join(lines) + "\n", has_free_names and not is_free_text


def _arguments(name: str, schema: dict[str, Any]) -> tuple[str, bool]:
    try:
        plain = plain_schema({"type": "object", **schema})
    except BadRequestError as error:
        raise type(error)(f"{name}: {error.message}", param="tools") from None
    return json.dumps({**json.loads(plain.text), "x-guidance": JSON_FORM}), plain.has_free_names


class _Written:
    """Rules, and signs as text or as tokens."""

    def __init__(self, special: Mapping[str, int]):
        self._special = special
        self._signs = re.compile("|".join(sorted(map(re.escape, special), key=len, reverse=True)) or r"(?!)")
        self.rules: list[str] = []

    def literal(self, text: str) -> str:
        """``text`` as a sequence of Lark's strings and tokens; empty where it is."""
        parts, at = [], 0
        for found in self._signs.finditer(text):
            parts += [json.dumps(text[at : found.start()], ensure_ascii=False)] if found.start() > at else []
            parts.append(f"<[{self._special[found[0]]}]>")
            at = found.end()
        parts += [json.dumps(text[at:], ensure_ascii=False)] if text[at:] else []
        return " ".join(parts)

    def calls(self, name: str, notation: CallNotation, rules: CallRules, start: str = "") -> None:
        """The rule ``name``: one call, or several; ``start`` is what was read of the first one."""
        more = f"({self.literal(notation.between)} call)*" if rules.is_parallel else ""
        first, begin = "call", notation.begin.removeprefix(start)
        self._choice("call", notation.before, notation, rules)
        if start and not notation.begin:
            first = "first"
            self._choice(first, notation.before.removeprefix(start), notation, rules)
        self.rules.append(f"{name}: {self.literal(begin)} {first} {more} {self.literal(notation.end)}")

    def _choice(self, name: str, before: str, notation: CallNotation, rules: CallRules) -> None:
        """The rule ``name``: a call of one of the functions."""
        after = self.literal(notation.after)
        calls = [
            f"{self.literal(before.replace('NAME', function))} args_{index} {after}"
            for index, function in enumerate(rules.schemas)
        ]
        rule = f"{name}: {' | '.join(calls)}"
        if rule not in self.rules:
            self.rules.append(rule)

    def free(self, notation: CallNotation, rules: CallRules) -> str:
        """Text without a call, or text and then calls. A special token is no part of a text."""
        if notation.sign in self._special:
            self.rules.append(f"TEXT: /{ANY}/")
            return "TEXT? calls?"
        sign = _pattern(notation.sign)
        if not notation.may_follow_text:
            self.rules.append(rf"TEXT: /[^{{]{ANY}/ & ~/{ANY}\n[ \t]*\{{{ANY}/")
            return "(calls | TEXT)?"
        self.rules.append(f"TEXT: /{ANY}/ & ~/{ANY}{sign}{ANY}/")
        self.rules.append(f"before[suffix={json.dumps(notation.sign)}]: /{ANY}/")
        self.calls("rest", notation, rules, notation.sign)
        return "(TEXT | before rest)?"

    def thinking(self, rules: CallRules) -> str:
        """The reasoning in front of everything else; empty where the model has none."""
        if not rules.closes:
            return ""
        opens = "(" + " | ".join(map(self.literal, rules.opens)) + ")"
        closings = []
        for index, sign in enumerate(rules.closes):
            if sign in self._special:
                self.rules.append(f"thought_{index}: /{ANY}/ {self.literal(sign)}")
            else:
                self.rules.append(f"thought_{index}[suffix={json.dumps(sign)}]: /{ANY}/")
            closings.append(f"thought_{index}")
        self.rules.append(f"thought: {' | '.join(closings)}")
        self.rules.append("SPACE: /[ \\n]+/")
        return "thought SPACE? " if rules.is_thinking else f"({opens} thought SPACE?)? "


def _pattern(sign: str) -> str:
    return re.sub(r"([\[\]|(){}.*+?^$\\/])", r"\\\1", sign)
