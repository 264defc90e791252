"""How Python's literals and Gemma's values are written, as rules. HTTP threads; pure."""

from __future__ import annotations

import json
import re

from app.models.grammars.calls.lark_rules import ANY, LarkRules, regex, searched, string
from app.models.json_schemas.nodes import refuse_unsupported, shown
from app.models.json_schemas.shapes import Scalar, String

MAX_NAME_LENGTH = 200


class PythonStyle:
    """`{"a": [1, 'x', None]}`: strings in either quotation mark, their line breaks escaped."""

    between, colon, is_sorted = ", ", ": ", False

    def literal(self, rules: LarkRules, value: Scalar) -> str | None:
        return string(repr(value)) if value is None or isinstance(value, bool) else string(_json(value))

    def text(self, rules: LarkRules, allowed: String, pointer: str) -> str:
        return rules.text(" | ".join(_quoted(mark, allowed, pointer) for mark in "\"'"), pointer)

    def name(self, rules: LarkRules, name: str, pointer: str) -> str:
        return string(_json(name))

    def free_name(self, rules: LarkRules, pattern: str | None, pointer: str) -> str:
        return self.text(rules, String(() if pattern is None else (pattern,)), pointer)


class JsonWordStyle(PythonStyle):
    """The same with JSON's words: true, false, null."""

    def literal(self, rules: LarkRules, value: Scalar) -> str | None:
        return string(_json(value))


_ESCAPES = {mark: rf"\\[{mark}\\nrt]" for mark in "\"'"}


def _quoted(mark: str, allowed: String, pointer: str) -> str:
    """A string between two marks; where it has a pattern, of characters that need no escape."""
    plain = regex(rf"[^{mark}\\\x00-\x1f]")
    if not allowed.patterns:
        signs = f"{plain} | {regex(_ESCAPES[mark])}"
        return f"{string(mark)} ({signs}){_length(allowed)} {string(mark)}"
    bodies = [f"({plain}){_length(allowed)}", *(searched(pattern, pointer) for pattern in allowed.patterns)]
    return f"{string(mark)} ({' & '.join(bodies)}) {string(mark)}"


class GemmaStyle:
    """`{a:[1,<quote>x<quote>,null]}`: names stand bare and in the alphabet's order, nothing in a string is escaped."""

    between, colon, is_sorted = ",", ":", True

    def __init__(self, quote: str):
        self._quote = quote

    def literal(self, rules: LarkRules, value: Scalar) -> str | None:
        if not isinstance(value, str):
            return string(_json(value))
        mark = rules.literal(self._quote)
        return None if self._quote in value else f"{mark} {string(value) if value else ''} {mark}"

    def text(self, rules: LarkRules, allowed: String, pointer: str) -> str:
        body = text_body(rules, allowed, pointer, self._quote)
        mark = rules.literal(self._quote)
        if rules.is_token(self._quote):
            return f"{mark} {rules.text(body, pointer)} {mark}"
        return f"{mark} {rules.text(f'({body}) {mark}', pointer)}"

    def name(self, rules: LarkRules, name: str, pointer: str) -> str:
        if not re.fullmatch(_BARE, name) or len(name) > MAX_NAME_LENGTH:
            refuse_unsupported(pointer, f"the name {shown(name, 40)!r} cannot be written in this model's calls")
        return string(name)

    def free_name(self, rules: LarkRules, pattern: str | None, pointer: str) -> str:
        return bare_name(rules, _BARE, pattern, pointer)


# Nothing that ends a name, and no white space around it.
_BARE = r"[^:,{}\[\]<\"\s]+"


def bare_name(rules: LarkRules, form: str, pattern: str | None, pointer: str) -> str:
    """A terminal for names of this form (a class, repeated) that ``pattern`` is found in."""
    body = regex(f"{form[:-1]}{{1,{MAX_NAME_LENGTH}}}")
    return rules.text(body if pattern is None else f"{body} & {searched(pattern, pointer)}", pointer)


def text_body(rules: LarkRules, allowed: String, pointer: str, *signs: str) -> str:
    """A terminal's body: text that is ``allowed`` and holds none of ``signs``."""
    length = regex(f"(?s:.){_length(allowed)}") if allowed.min_length or allowed.max_length is not None else ANY
    parts = [length, *(searched(pattern, pointer) for pattern in allowed.patterns)]
    return " & ".join([*parts, *(f"~{rules.holding(sign)}" for sign in signs)])


def _length(allowed: String) -> str:
    return f"{{{allowed.min_length},{'' if allowed.max_length is None else allowed.max_length}}}"


def _json(value: Scalar) -> str:
    return json.dumps(value, ensure_ascii=False)
