"""Rules and terminals of llguidance's Lark, as they are written: names, texts, patterns. HTTP threads; pure.

A sign that is a special token is matched as that token: as text it would be another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from app.models.json_schemas.nodes import place, refuse_unsupported
from app.models.json_schemas.patterns import branches, is_assertion, tokens, with_ascii_classes

ANY = "/(?s:.*)/"
# As in ``grammar_process.JSON_FORM``; there the compiler takes it as an option, inside of Lark as a keyword.
JSON_FORM = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}


_ESCAPED = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}


class LarkRules:
    """Rules of one grammar. ``special`` are the tokens that no text matches, by their names."""

    def __init__(self, special: Mapping[str, int]):
        self._special = special
        self._signs = re.compile("|".join(sorted(map(re.escape, special), key=len, reverse=True)) or r"(?!)")
        self._names: dict[tuple[str, str], str] = {}
        self._num_fresh = 0
        # Whose arguments are written, for those who are told of a place.
        self.function = ""
        self.texts: dict[str, str] = {}
        self.lines: list[str] = []

    def is_token(self, sign: str) -> bool:
        return sign in self._special

    def add(self, name: str, body: str) -> str:
        """The rule, or terminal, ``name``; returns its name."""
        self.lines.append(f"{name}: {body}")
        return name

    def rule(self, body: str, kind: str = "r") -> str:
        """The name of a rule, or of a terminal where ``kind`` is of capitals; one for each body."""
        key = kind, body
        if key not in self._names:
            self._names[key] = self.add(f"{kind}_{len(self._names)}", body)
        return self._names[key]

    def fresh(self) -> str:
        """A name for a rule that is added later."""
        self._num_fresh += 1
        return f"v_{self._num_fresh}"

    def terminal(self, body: str) -> str:
        return self.rule(body, "T")

    def text(self, body: str, pointer: str) -> str:
        """A terminal that some text has to match: else ``pointer`` is refused."""
        name = self.terminal(body)
        self.texts[name] = f"{self.function}: {place(pointer)}"
        return name

    def json(self, schema: str) -> str:
        """A rule for JSON that follows ``schema``, which is JSON as text."""
        return self.rule("%json " + json.dumps({**json.loads(schema), "x-guidance": JSON_FORM}))

    def literal(self, text: str) -> str:
        """``text`` as a sequence of Lark's strings and tokens; empty where it is."""
        parts, at = [], 0
        for found in self._signs.finditer(text):
            parts += [string(text[at : found.start()])] if found.start() > at else []
            parts.append(f"<[{self._special[found[0]]}]>")
            at = found.end()
        parts += [string(text[at:])] if text[at:] else []
        return " ".join(parts)

    def without(self, *signs: str) -> str:
        """A terminal's body: text that holds none of ``signs``."""
        return " & ".join([ANY, *(f"~{self.holding(sign)}" for sign in signs)])

    def holding(self, sign: str) -> str:
        return self.terminal(f"{ANY} {string(sign)} {ANY}")

    def text_up_to(self, sign: str, *others: str) -> str:
        """Free text without ``sign`` and ``others``, and then ``sign``."""
        first = self._signs.match(sign)
        body = self.without(sign if first is None else first[0], *others)
        if first is not None:
            return f"{self.terminal(body)}? {self.literal(sign)}"
        return self.terminal(f"({body}) {string(sign)}")


def string(text: str) -> str:
    """A string of Lark's."""
    return json.dumps(text, ensure_ascii=False)


def regex(pattern: str) -> str:
    """A regular expression of Lark's: slashes and line breaks are escaped, what is escaped already is left alone."""
    return "/" + re.sub(r"\\.|[/\n]", lambda found: _ESCAPED.get(found[0], found[0]), pattern, flags=re.DOTALL) + "/"


def searched(pattern: str, pointer: str) -> str:
    """``pattern`` as a terminal's body that a whole text matches where JSON schema's search finds it.

    Raises ``UnsupportedParameterError`` for assertions that stand elsewhere than at an end.
    """
    found = []
    for branch in branches(list(tokens(with_ascii_classes(pattern)))):
        is_begun, is_ended = branch[:1] == ["^"], branch[-1:] == ["$"]
        inner = branch[is_begun : len(branch) - is_ended]
        if any(map(is_assertion, inner)):
            refuse_unsupported(pointer, "assertions inside of a pattern are not supported in this model's calls")
        parts = [
            *([] if is_begun else [ANY]),
            *([regex("".join(inner))] if inner else []),
            *([] if is_ended else [ANY]),
        ]
        found.append(f"({' '.join(parts)})" if parts else '("")')
    return f"({' | '.join(found)})"
