"""Values between two tags of which the first says whether the value is a string, as rules. HTTP threads; pure.

A string stands bare, all else is JSON (DeepSeek's DSML; ``core/parsing/tool_calls/forms/tagged_forms/invocations.py``
reads it).
"""

from __future__ import annotations

from app.models.grammars.calls.lark_rules import LarkRules, string
from app.models.grammars.calls.literal_styles import text_body
from app.models.json_schemas.emission import Emission
from app.models.json_schemas.nodes import refuse_unsupported
from app.models.json_schemas.shapes import Alternative, Anything, Literals, String

TEXT, OTHER = ' string="true">', ' string="false">'


class MarkedValueRules:
    """Values behind the name of a parameter, the mark included, and ``tag``, which closes them."""

    def __init__(self, rules: LarkRules, emission: Emission, tag: str):
        self._rules = rules
        self._emission = emission
        self._tag = tag

    def value(self, alternatives: list[Alternative], pointer: str) -> str:
        """The body of a rule. Raises ``UnsupportedParameterError`` where none of the values can be written."""
        texts: list[str] = []
        others: list[Alternative] = []
        for one in alternatives:
            match one:
                case Anything():
                    texts.append(self._rules.without(self._tag))
                    others.append(one)
                case String():
                    texts.append(self._rules.text(text_body(self._rules, one, pointer, self._tag), pointer))
                case Literals():
                    texts += [string(word) for word in one.values if isinstance(word, str) and self._tag not in word]
                    rest = tuple(value for value in one.values if not isinstance(value, str))
                    others += [Literals(rest)] if rest else []
                case _:
                    others.append(one)
        written = [self._text(texts)] if texts else []
        written += [self._other(others)] if others else []
        if not written:
            refuse_unsupported(pointer, "none of these values can be written in this model's calls")
        return " | ".join(written)

    def _text(self, bodies: list[str]) -> str:
        """One terminal for all, so that none hides another."""
        rules, mark = self._rules, self._rules.literal(TEXT)
        body = " | ".join(f"({one})" for one in bodies)
        if rules.is_token(self._tag):
            return f"{mark} {rules.terminal(body)} {rules.literal(self._tag)}"
        return f"{mark} {rules.terminal(f'({body}) {string(self._tag)}')}"

    def _other(self, alternatives: list[Alternative]) -> str:
        rules = self._rules
        schema = self._emission.part(alternatives).text
        return f"{rules.literal(OTHER)} {rules.json(schema)} {rules.literal(self._tag)}"
