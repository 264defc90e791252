"""Grammars for tool calls: a family's own notation around arguments that follow their schema. HTTP threads; pure.

Written in llguidance's Lark. What stands before a call is free where the request leaves the choice to the model, and
reasoning always is; neither holds, as text, a sign that a reader takes for a call's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import UnsupportedParameterError
from app.core.parsing.tool_calls.forms.named_forms import harmony
from app.core.work.sampling_params import ReasoningSpan
from app.models.grammars.calls.argument_rules import argument_rule
from app.models.grammars.calls.lark_rules import ANY, LarkRules
from app.models.grammars.calls.notation_table import COUNTER, NOTATIONS, CallNotation
from app.models.grammars.calls.thoughts import thought_rule
from app.models.grammars.grammar_messages import Source


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


def call_grammar(rules: CallRules, special: Mapping[str, int]) -> Source:
    """The grammar. Names of objects cannot be kept apart behind free text.

    ``special`` are the tokenizer's special tokens. Raises a ``BadRequestError`` where a schema cannot be followed.
    """
    notation = NOTATIONS[rules.notation]
    written = _Written(rules, notation, special)
    has_free_names = written.add_arguments()
    thinking = ""
    if rules.notation == "harmony":
        body = written.messages()
    else:
        thinking = thought_rule(written.lark, rules.opens, rules.closes, is_open=rules.is_thinking)
        body = written.required() if rules.is_required else written.free()
    span = ReasoningSpan(tuple(rules.opens), tuple(rules.closes), rules.is_thinking) if thinking else None
    lines = ["%llguidance {}", f"start: {thinking} {body}", *written.lark.lines]
    text = "\n".join(lines) + "\n"
    keeps_names_apart = has_free_names and written.keeps_names_apart
    return Source("tool_calls", text, keeps_names_apart, texts=tuple(written.lark.texts.items()), reasoning=span)


class _Written:
    """The rules of one grammar."""

    def __init__(self, rules: CallRules, notation: CallNotation, special: Mapping[str, int]):
        self._rules = rules
        self._notation = notation
        self.lark = LarkRules(special)

    @property
    def keeps_names_apart(self) -> bool:
        """Whether names of one object can be kept apart: not behind free text."""
        return self._rules.is_required and self._rules.notation != "harmony"

    def add_arguments(self) -> bool:
        """A rule for each function's arguments; whether some names in them are the model's to choose."""
        has_free_names = False
        for index, (name, schema) in enumerate(self._rules.schemas.items()):
            if not re.fullmatch(self._notation.names, name):
                text = f"tools: the name {name!r} cannot be written in this model's calls"
                raise UnsupportedParameterError(text, param="tools")
            body, is_free = argument_rule(
                self.lark, self._notation.arguments, name, schema, keeps_names_apart=self.keeps_names_apart
            )
            has_free_names = has_free_names or is_free
            self.lark.add(f"args_{index}", body)
        return has_free_names

    def required(self) -> str:
        """One call, or several."""
        return self._calls(self._notation.begin, self._notation.before)

    def _calls(self, begin: str, first: str) -> str:
        notation, literal = self._notation, self.lark.literal
        more = f"({literal(notation.between)} {self._call(notation.before)})*" if self._rules.is_parallel else ""
        return self.lark.rule(f"{literal(begin)} {self._call(first)} {more} {literal(notation.end)}")

    def _call(self, before: str) -> str:
        """A call of one of the functions."""
        after = self.lark.literal(self._notation.after)
        calls = [
            f"{self._head(before.replace('NAME', name))} args_{index} {after}"
            for index, name in enumerate(self._rules.schemas)
        ]
        return self.lark.rule(" | ".join(calls))

    def _head(self, before: str) -> str:
        """What a call begins with; the number in it is the model's to choose."""
        parts = map(self.lark.literal, before.split(COUNTER))
        return f" {self.lark.terminal('/[0-9]{1,4}/')} ".join(parts)

    def free(self) -> str:
        """Text without a call, or text and then calls."""
        notation, lark = self._notation, self.lark
        text = lark.without(*notation.signs)
        if not notation.may_follow_text:
            begun = "".join(f"\\{sign}" for sign in notation.line_signs)
            inside = lark.terminal(rf"{ANY} /\n[ \t]*[{begun}]/ {ANY}")
            return f"({self.required()} | {lark.terminal(f'{text} & /[^{begun}](?s:.*)/ & ~{inside}')})?"
        sign = notation.signs[0]
        if lark.is_token(sign):
            return f"{lark.terminal(text)}? {self.required()}?"
        begin, before = notation.begin, notation.before
        rest = self._calls(begin.removeprefix(sign), before if begin else before.removeprefix(sign))
        return f"({lark.terminal(text)} | {lark.text_up_to(sign, *notation.signs[1:])} {rest})?"

    def messages(self) -> str:
        """Harmony: thoughts, words to the user where they are free, and then a call or the answer."""
        lark, literal = self.lark, self.lark.literal
        text = lark.terminal(lark.without(*harmony.HEADS, *harmony.ENDS, harmony.MESSAGE))
        more = literal(harmony.NEXT_MESSAGE)
        thought = f"{literal(f'{harmony.CHANNEL}analysis{harmony.MESSAGE}')} {text} {more}"
        calls = [
            f"{head} args_{index}"
            for index, name in enumerate(self._rules.schemas)
            for head in map(literal, harmony_heads(name))
        ]
        if self._rules.is_required:
            return f"({thought})* ({' | '.join(calls)})"
        said = f"{literal(f'{harmony.CHANNEL}commentary{harmony.MESSAGE}')} {text} {more}"
        answer = f"{literal(f'{harmony.FINAL}{harmony.MESSAGE}')} {text}"
        return f"({thought} | {said})* ({' | '.join([*calls, answer])})"


def harmony_heads(name: str) -> list[str]:
    """What a call begins with: its function stands behind the channel, or before it; the kind of its text may be named
    by a sign or without (OpenAI's page, the chat template of gpt-oss)."""
    commentary, recipient = f"{harmony.CHANNEL}commentary", f" to=functions.{name}"
    kinds = (f" {harmony.CONSTRAIN}json", " json", "")
    return [
        f"{head}{kind}{harmony.MESSAGE}" for head in (commentary + recipient, recipient + commentary) for kind in kinds
    ]
