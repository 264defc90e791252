"""Values between two tags, as rules: strings stand bare, all else is JSON. HTTP threads; pure.

The counterpart of ``core/parsing/tool_calls/bare_values.py``: what is written here is read there as it was meant. A
string that would be read as another value is not written.
"""

from __future__ import annotations

import json

from app.core.parsing.tool_calls.known_tools import is_text
from app.models.grammars.calls.lark_rules import LarkRules, regex, string
from app.models.grammars.calls.literal_styles import text_body
from app.models.json_schemas.emission import Emission
from app.models.json_schemas.nodes import refuse_unsupported
from app.models.json_schemas.shapes import Alternative, Anything, Literals, Number, String

_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
# Bare texts that are read as a value of each kind.
_READ_AS = {
    "number": rf"\s*{_NUMBER}\s*",
    "boolean": r"\s*(?:true|false|True|False)\s*",
    "null": r"\s*(?:null|None|NaN|-?Infinity)\s*",
    "object": r"\s*\{(?s:.*)",
    "array": r"\s*\[(?s:.*)",
}
# What JSON begins with that is read to its end, whatever stands in it.
_STRUCTURED = r'\s*[\[{"](?s:.*)'
_NUMBERS = {True: r"-?(?:0|[1-9][0-9]*)", False: _NUMBER}


class BareValueRules:
    """Values in front of ``closing``, which is ``lead`` and then a tag."""

    def __init__(self, rules: LarkRules, emission: Emission, lead: str, tag: str):
        self._rules = rules
        self._emission = emission
        self._lead = lead
        self._tag = tag

    def value(self, alternatives: list[Alternative], types: frozenset[str], pointer: str) -> str:
        """The body of a rule for a value and what closes it. ``types`` are what a reader is told of the value."""
        if any(isinstance(one, Anything) for one in alternatives):
            free = f"{self._rules.without(self._tag)} & ~{regex(_STRUCTURED)}"
            return f"{self._bare([free])} | {self._json('{}')}"
        if "string" not in types:
            return self._json(self._emission.part(alternatives).text)
        texts, words, others = self._parted(alternatives, types, pointer)
        if texts and not is_text(types):
            read = " & ".join(f"~{regex(_READ_AS[kind])}" for kind in sorted(types - {"string"}))
            texts = [f"({' | '.join(texts)}) & {read}"]
        written = [self._bare(texts + words)] if texts or words else []
        written += [self._json(self._emission.part(others).text)] if others else []
        if not written:
            refuse_unsupported(pointer, "none of these values can be written in this model's calls")
        return " | ".join(written)

    def _parted(
        self, alternatives: list[Alternative], types: frozenset[str], pointer: str
    ) -> tuple[list[str], list[str], list[Alternative]]:
        """Strings and other words, each as a terminal's body, and what is written as JSON."""
        texts: list[str] = []
        words: list[str] = []
        others: list[Alternative] = []
        for one in alternatives:
            match one:
                case String():
                    texts.append(self._rules.text(text_body(self._rules, one, pointer, self._tag), pointer))
                case Literals():
                    texts += [
                        string(value) for value in one.values if isinstance(value, str) and self._tag not in value
                    ]
                    others_listed = [value for value in one.values if not isinstance(value, str)]
                    words += [] if is_text(types) else [string(json.dumps(value)) for value in others_listed]
                case Number() if one == Number(one.is_integer) and not is_text(types):
                    words.append(regex(_NUMBERS[one.is_integer]))
                case _ if not is_text(types):
                    others.append(one)
        return texts, words, others

    def _bare(self, bodies: list[str]) -> str:
        """One terminal for all, so that none hides another."""
        rules = self._rules
        body = " | ".join(f"({one})" for one in bodies)
        if not rules.is_token(self._tag):
            return rules.terminal(f"({body}) {string(self._lead + self._tag)}")
        lead = string(self._lead) if self._lead else ""
        return f"{rules.terminal(f'({body}) {lead}'.strip())} {rules.literal(self._tag)}"

    def _json(self, schema: str) -> str:
        return f"{self._rules.json(schema)} {self._rules.literal(self._lead + self._tag)}"
